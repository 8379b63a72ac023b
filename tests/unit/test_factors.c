/* SPDX-License-Identifier: MIT
 *
 * tests/unit/test_factors.c - effects and interactions of factorial designs against models whose
 * effects are known, with cells missing and as a fraction.
 */
#include "compare/factors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static pbf_design design(int n, const char *const *factors)
{
    pbf_design d = { 0 };
    char why[200];
    for (int i = 0; i < n; i++)
        if (pbf_add(&d, factors[i], why, sizeof why))
            fail_msg("%s", why);
    if (pbf_plan(&d, why, sizeof why))
        fail_msg("%s", why);
    return d;
}

static void close_to(double a, double b)
{
    assert_true(fabs(a - b) < 1e-12);
}

static void full_factorial(void **state)
{
    static const char *const f[] = { "attention=paged|radix,attention.evict=lfu|hash",
                                     "scheduler=a|b", "spec=|ngram" };
    pbf_design d = design(3, f);
    double y[PBF_MAX_CELLS];
    (void)state;
    assert_int_equal(d.n_cells, 12);
    assert_int_equal(d.fraction, 1);
    for (int c = 0; c < 12; c++) {
        const int *l = d.level[c];
        y[c] = 3 +
               (l[0] == 1   ? 0.5
                : l[0] == 2 ? 0.3
                            : 0) +
               (l[1] ? -0.2 : 0) + (l[2] ? 0.1 : 0) + (l[0] == 1 && l[1] ? 0.04 : 0);
    }
    close_to(pbf_effect(&d, 0, 1, y), 0.52); /* half of the cells have b, which adds 0.04 */
    close_to(pbf_effect(&d, 0, 2, y), 0.3);
    close_to(pbf_effect(&d, 2, 1, y), 0.1);
    close_to(pbf_interaction(&d, 0, 1, 1, 1, y), 0.04);
    close_to(pbf_interaction(&d, 1, 1, 0, 1, y), 0.04);
    close_to(pbf_interaction(&d, 0, 2, 1, 1, y), 0);
    close_to(pbf_interaction(&d, 1, 1, 2, 1, y), 0);

    char *s = pbf_settings(&d, 0), *t = pbf_settings(&d, 1 + 3 + 6), *n = pbf_name(&d, 1 + 6);
    assert_string_equal(s, "attention=paged,scheduler=a");
    assert_string_equal(t, "attention=radix,attention.evict=lfu,scheduler=b,spec=ngram");
    assert_string_equal(n, "attention=radix,attention.evict=lfu spec=ngram");
    free(s);
    free(t);
    free(n);
    pbf_clear(&d);
}

static void missing_cells(void **state)
{
    static const char *const f[] = { "a=0|1", "b=0|1" };
    pbf_design d = design(2, f);
    double y[PBF_MAX_CELLS];
    (void)state;
    for (int c = 0; c < 4; c++)
        y[c] = d.level[c][0] * 0.4 + d.level[c][1] * 0.7;
    d.refused[3] = 1;
    y[3] = NAN;
    close_to(pbf_effect(&d, 0, 1, y), 0.4);
    close_to(pbf_effect(&d, 1, 1, y), 0.7);
    assert_true(isnan(pbf_interaction(&d, 0, 1, 1, 1, y)));
    d.refused[1] = 1;
    y[1] = NAN;
    assert_true(isnan(pbf_effect(&d, 0, 1, y)));
    pbf_clear(&d);
}

/* Main effects of a fraction come out right although two-factor interactions exist. */
static void fraction(void **state)
{
    static const char *const f[] = { "a=0|1", "b=0|1", "c=0|1", "d=0|1", "e=0|1", "f=0|1" };
    pbf_design d = design(6, f);
    double y[PBF_MAX_CELLS];
    (void)state;
    assert_int_equal(d.n_cells, 16);
    assert_int_equal(d.fraction, 4);
    for (int c = 0; c < 16; c++) {
        int sign_ab = d.level[c][0] == d.level[c][1] ? 1 : -1;
        y[c] = sign_ab * 0.05;
        for (int k = 0; k < 6; k++)
            y[c] += d.level[c][k] * 0.1 * (k + 1);
    }
    for (int k = 0; k < 6; k++)
        close_to(pbf_effect(&d, k, 1, y), 0.1 * (k + 1));
    close_to(pbf_interaction(&d, 0, 1, 1, 1, y), 0.2); /* ++ and -- against +- and -+ */
    assert_true(pbf_aliased(&d, 0, 1, 2, 4));          /* e = a b c */
    assert_false(pbf_aliased(&d, 0, 1, 0, 2));
    for (int k = 0; k < 6; k++) { /* balanced */
        int n = 0;
        for (int c = 0; c < 16; c++)
            n += d.level[c][k];
        assert_int_equal(n, 8);
    }
    pbf_clear(&d);
}

static void mistakes(void **state)
{
    static const char *const bad[] = { "attention", "=a|b", "a=1" };
    static const char *const wide[] = { "a=0|1|2", "b=0|1|2", "c=0|1" };
    char why[200];
    pbf_design d = { 0 };
    (void)state;
    assert_int_equal(pbf_plan(&d, why, sizeof why), -1);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pbf_add(&d, bad[i], why, sizeof why), -1);
        pbf_clear(&d);
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(pbf_add(&d, wide[i], why, sizeof why), 0);
    assert_int_equal(pbf_plan(&d, why, sizeof why), -1);
    assert_non_null(strstr(why, "a has 3"));
    pbf_clear(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_factorial),
        cmocka_unit_test(missing_cells),
        cmocka_unit_test(fraction),
        cmocka_unit_test(mistakes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
