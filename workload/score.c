/* SPDX-License-Identifier: MIT
 *
 * workload/score.c - is an answer the expected one? Simple rules that anyone can repeat: text that
 * is contained, or the last number (as for GSM8K, where the solution ends with it).
 */
#include "impl.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

/* letters in lower case, everything else one blank */
static size_t plain(const char *s, size_t n, char *out, size_t cap)
{
    size_t at = 0;
    for (size_t i = 0; i < n && at + 1 < cap; i++) {
        unsigned char c = (unsigned char)s[i];
        if (isalnum(c) || c >= 128)
            out[at++] = (char)tolower(c);
        else if (at && out[at - 1] != ' ')
            out[at++] = ' ';
    }
    while (at && out[at - 1] == ' ')
        at--;
    out[at] = 0;
    return at;
}

/* whole words of expect in s */
static int contains(const char *s, size_t n, const char *expect)
{
    enum { CAP = 1 << 14 };
    char text[CAP], want[1024];
    plain(s, n, text, sizeof text);
    size_t len = plain(expect, strlen(expect), want, sizeof want);
    if (!len)
        return 0;
    for (const char *p = text; (p = strstr(p, want)); p++)
        if ((p == text || p[-1] == ' ') && (p[len] == ' ' || !p[len]))
            return 1;
    return 0;
}

/* the last number of a text, commas between digits allowed; NaN: none */
static double last_number(const char *s, size_t n)
{
    size_t end = n;
    double x = 0, unit = 1;
    int fraction = 0;
    while (end && !isdigit((unsigned char)s[end - 1]))
        end--;
    if (!end)
        return NAN;
    size_t from = end;
    while (from && (isdigit((unsigned char)s[from - 1]) ||
                    ((s[from - 1] == '.' || s[from - 1] == ',') && from > 1 &&
                     isdigit((unsigned char)s[from - 2]))))
        from--;
    for (size_t i = from; i < end; i++) {
        if (s[i] == ',')
            continue;
        if (s[i] == '.') {
            fraction = 1;
            continue;
        }
        x = x * 10 + (s[i] - '0');
        unit *= fraction ? 10 : 1;
    }
    x /= unit;
    return from && s[from - 1] == '-' ? -x : x;
}

int pbw_matches(const pbi_request *q, const pbi_answer *a)
{
    if (!q->expect || !a->text)
        return -1;
    if (q->match == PBW_NUMBER) {
        double want = last_number(q->expect, strlen(q->expect));
        double got = last_number(a->text, a->n_text);
        return isfinite(want) && fabs(want - got) <= 1e-9 * fmax(1, fabs(want));
    }
    return contains(a->text, a->n_text, q->expect);
}

double pbw_score(int64_t n, const pbi_request *q, const pbi_answer *a)
{
    int64_t asked = 0, right = 0;
    for (int64_t i = 0; i < n; i++) {
        int is = pbw_matches(&q[i], &a[i]);
        asked += is >= 0;
        right += is > 0;
    }
    return asked ? (double)right / (double)asked : NAN;
}
