/* SPDX-License-Identifier: MIT
 *
 * plugins/constraint-json/test_json.c - whatever a random walk over allowed tokens writes is JSON
 * for jansson and valid for a small validator of the test's own; valid texts can be written;
 * keywords that are not translated are refused. PATCHBAY_FUZZ_SECONDS lengthens the walks.
 */
#include "../constraint-common/test_host.h"
#include "../../tests/unit/plug.h"

#include <jansson.h>

static bench b;

static int open_schema(const char *schema, const char *more, pb_err *err)
{
    static char set[70000];
    const char *all[] = { set, more };
    snprintf(set, sizeof set, "schema=%s", schema);
    return bench_open(&b, "json", more ? 2 : 1, all, err);
}

/* ---- a small validator ------------------------------------------------- */

static int valid(json_t *root, json_t *s, json_t *v);

static int has_type(json_t *v, const char *type)
{
    return !strcmp(type, "null")      ? json_is_null(v)
           : !strcmp(type, "boolean") ? json_is_boolean(v)
           : !strcmp(type, "integer") ? json_is_integer(v)
           : !strcmp(type, "number")  ? json_is_number(v)
           : !strcmp(type, "string")  ? json_is_string(v)
           : !strcmp(type, "array")   ? json_is_array(v)
                                      : json_is_object(v);
}

static int within(json_t *s, const char *min, const char *max, size_t n)
{
    json_t *lo = json_object_get(s, min), *hi = json_object_get(s, max);
    return (!lo || (json_int_t)n >= json_integer_value(lo)) &&
           (!hi || (json_int_t)n <= json_integer_value(hi));
}

static size_t letters(json_t *v)
{
    size_t n = 0;
    for (const char *p = json_string_value(v); *p; p++)
        n += (*p & 0xc0) != 0x80;
    return n;
}

static int valid_object(json_t *root, json_t *s, json_t *v)
{
    json_t *props = json_object_get(s, "properties"), *x, *more;
    const char *key;
    size_t i;
    more = json_object_get(s, "additionalProperties");
    json_array_foreach(json_object_get(s, "required"), i, x)
    {
        if (!json_object_get(v, json_string_value(x)))
            return 0;
    }
    json_object_foreach(v, key, x)
    {
        json_t *p = json_object_get(props, key);
        if (p ? !valid(root, p, x) : more && !valid(root, more, x))
            return 0;
    }
    return 1;
}

static int n_valid(json_t *root, json_t *list, json_t *v)
{
    int n = 0;
    for (size_t i = 0; i < json_array_size(list); i++)
        n += valid(root, json_array_get(list, i), v);
    return n;
}

static int valid(json_t *root, json_t *s, json_t *v)
{
    json_t *x, *type = json_object_get(s, "type"), *items = json_object_get(s, "items");
    size_t i;
    int any = 0;
    if (json_is_true(s) || json_is_false(s))
        return json_is_true(s);
    if (json_object_get(s, "$ref")) /* tests use #/$defs/x and # */
    {
        const char *r = json_string_value(json_object_get(s, "$ref"));
        return valid(root, r[1] ? json_object_get(json_object_get(root, "$defs"), r + 8) : root, v);
    }
    if (json_object_get(s, "anyOf"))
        return n_valid(root, json_object_get(s, "anyOf"), v) > 0;
    if (json_object_get(s, "oneOf"))
        return n_valid(root, json_object_get(s, "oneOf"), v) == 1;
    if (json_object_get(s, "const"))
        return json_equal(json_object_get(s, "const"), v);
    json_array_foreach(json_object_get(s, "enum"), i, x)
    {
        any |= json_equal(x, v);
    }
    if (json_object_get(s, "enum"))
        return any;
    if (json_is_string(type) && !has_type(v, json_string_value(type)))
        return 0;
    json_array_foreach(type, i, x)
    {
        any |= has_type(v, json_string_value(x));
    }
    if (json_is_array(type) && !any)
        return 0;
    if (json_is_string(v) && !within(s, "minLength", "maxLength", letters(v)))
        return 0;
    if (json_is_array(v) && !within(s, "minItems", "maxItems", json_array_size(v)))
        return 0;
    json_array_foreach(json_is_array(v) && items ? v : NULL, i, x)
    {
        if (!valid(root, items, x))
            return 0;
    }
    return !json_is_object(v) || valid_object(root, s, v);
}

/* ---- random walks ------------------------------------------------------ */

static const char *const schemas[] = {
    "true",
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"minLength\":2,"
    "\"maxLength\":5},\"age\":{\"type\":\"integer\"},\"tags\":{\"type\":\"array\",\"items\":"
    "{\"enum\":[\"x\",1,null,\"\xc3\xa9\"]},\"minItems\":1,\"maxItems\":3}},"
    "\"required\":[\"name\",\"tags\"]}",
    "{\"properties\":{\"a\":{\"type\":\"integer\"},\"ab\":{\"type\":\"null\"}},"
    "\"additionalProperties\":{\"type\":\"boolean\"}}",
    "{\"properties\":{\"a\":{\"type\":\"number\"},\"b\":{\"const\":true},\"c\":{\"type\":\"null\"}}"
    ","
    "\"additionalProperties\":false}",
    "{\"$defs\":{\"tree\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\"},"
    "\"kids\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/tree\"},\"maxItems\":2}},"
    "\"required\":[\"v\",\"kids\"]}},\"$ref\":\"#/$defs/tree\"}",
    "{\"anyOf\":[{\"type\":\"string\",\"maxLength\":3},{\"type\":[\"null\",\"boolean\"]}]}",
    "{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"k\":{\"const\":1}},\"required\":[\"k\"]},"
    "{\"type\":\"object\",\"properties\":{\"k\":{\"const\":2},\"z\":{\"type\":\"null\"}},"
    "\"required\":[\"k\"]}]}",
    "{\"type\":\"array\",\"items\":{\"type\":\"array\",\"maxItems\":0},\"minItems\":2}",
    "{\"type\":\"array\",\"items\":{\"$ref\":\"#\"},\"maxItems\":2}",
};

/* A text of random allowed tokens; what closes is preferred as it grows. */
static int walk(uint64_t *rng, char *text, size_t cap)
{
    size_t n = 0;
    b.n_tok = 0;
    while (b.n_tok < 700 && n + 20 < cap) {
        int32_t id = -1, k = 0;
        assert_int_equal(bench_mask(&b, b.n_tok / 2, b.n_tok - b.n_tok / 2), 0);
        if (bench_allows(&b, 0) && plug_below(rng, 3) == 0)
            break;
        for (const char *p = "]}\"01e,"; *p && b.n_tok > 60 && id < 0; p++)
            if (bench_allows(&b, 1 + *p) && plug_below(rng, 2))
                id = 1 + *p;
        for (int32_t i = 1; i < b.n_vocab && (id < 0 || b.n_tok <= 60); i++)
            if (bench_allows(&b, i) && plug_below(rng, ++k) == 0)
                id = i;
        if (id < 0 && bench_allows(&b, 0))
            break;
        if (id < 0)
            fail_msg("nothing is allowed after %.*s", (int)n, text);
        memcpy(text + n, b.piece[id], b.len[id]);
        n += b.len[id];
        b.tok[b.n_tok++] = id;
    }
    text[n] = 0;
    return bench_mask(&b, b.n_tok, 0) == 0 && bench_allows(&b, 0) ? (int)n : -1;
}

static void test_walks(void **state)
{
    static const char *const words[] = { "{\"",    "\":", "\",", "},",       "true",
                                         "null",   "ab",  "12",  "\xc3\xa9", "\\u",
                                         "name\"", "[]",  "[[",  "\": \"" };
    uint64_t rng = 1;
    (void)state;
    bench_words(&b, sizeof words / sizeof words[0], words);
    double end = plug_clock() + plug_seconds(3);
    int whole = 0, done = 0;
    for (int round = 0; round < 20 || plug_clock() < end; round++)
        for (size_t i = 0; i < sizeof schemas / sizeof schemas[0]; i++, done++) {
            static char text[16384];
            pb_err err = { 0 };
            json_error_t why;
            json_t *s = json_loads(schemas[i], JSON_DECODE_ANY, NULL);
            if (open_schema(schemas[i], NULL, &err))
                fail_msg("%s: %s", schemas[i], err.msg);
            int n = walk(&rng, text, sizeof text);
            json_t *v =
                n < 0 ? NULL : json_loadb(text, (size_t)n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
            if (n >= 0 && !v)
                fail_msg("%s wrote %s: %s", schemas[i], text, why.text);
            if (n >= 0 && !valid(s, s, v))
                fail_msg("%s wrote %s, which is not valid", schemas[i], text);
            whole += n >= 0;
            json_decref(v);
            json_decref(s);
            bench_close(&b);
        }
    print_message("%d of %d walks came to an end\n", whole, done);
    assert_true(whole * 2 > done);
}

/* ---- texts that must be writable, or not ------------------------------- */

static int writable(const char *schema, const char *text)
{
    pb_err err = { 0 };
    if (open_schema(schema, NULL, &err))
        fail_msg("%s: %s", schema, err.msg);
    int ok = 1;
    for (const char *p = text; *p && ok; p++) {
        assert_int_equal(bench_mask(&b, b.n_tok, 0), 0);
        ok = bench_allows(&b, 1 + (unsigned char)*p);
        b.tok[b.n_tok++] = 1 + (unsigned char)*p;
    }
    assert_int_equal(bench_mask(&b, b.n_tok, 0), 0);
    ok &= bench_allows(&b, 0);
    bench_close(&b);
    return ok;
}

static void test_texts(void **state)
{
    (void)state;
    assert_true(writable("true", "{\"a\": [1, -2.5e3, \"\\u00e9\\n\", {}, []], \"b\": null}"));
    assert_false(writable("true", "[1,]"));
    assert_false(writable("true", "\"\\ud800\""));
    assert_false(writable("true", "01"));
    assert_true(writable(schemas[1], "{\"name\": \"Bob\", \"age\": 7, \"tags\": [\"x\", null]}"));
    assert_true(writable(schemas[1], "{\"name\":\"Bob\",\"tags\":[1]}"));
    assert_false(writable(schemas[1], "{\"name\":\"B\",\"tags\":[1]}"));
    assert_false(writable(schemas[1], "{\"name\":\"Bob\"}"));
    assert_true(writable(schemas[2], "{\"a\":1,\"ab\":null,\"abc\":true,\"b\":false}"));
    assert_false(writable(schemas[2], "{\"ab\":true}"));
    assert_true(writable(schemas[3], "{\"b\":true}"));
    assert_true(writable(schemas[3], "{}"));
    assert_false(writable(schemas[3], "{\"d\":1}"));
    assert_true(writable("{\"pattern\":\"^[A-Z]{2}-\\\\d+$\"}", "\"AB-12\""));
    assert_false(writable("{\"pattern\":\"^[A-Z]{2}-\\\\d+$\"}", "\"AB-\""));
    assert_true(writable("{\"pattern\":\"b+\"}", "\"a\\\"bc\""));
    assert_true(writable("{\"pattern\":\"^\\\"$\"}", "\"\\\"\""));
    assert_true(writable("{\"enum\":[1,2],\"type\":\"integer\"}", "2"));
}

static void refused(const char *schema, const char *words)
{
    pb_err err = { 0 };
    int rc = open_schema(schema, NULL, &err);
    bench_close(&b);
    if (rc != PB_E_INVAL || !strstr(err.msg, words))
        fail_msg("%.60s: code %d, message '%s', expected '%s'", schema, rc, err.msg, words);
}

static void test_refusals(void **state)
{
    (void)state;
    static char deep[60000];
    refused("{\"type\":\"integer\",\"minimum\":3}", "not translated: minimum");
    refused("{\"type\":\"array\",\"uniqueItems\":true}", "not translated: uniqueItems");
    refused("{\"type\":\"string\",\"format\":\"date\"}", "not translated: format");
    refused("{\"properties\":{\"a\":{\"not\":{}}}}",
            "#/properties/a: this keyword is not translated: not");
    refused("{\"anyOf\":[{}],\"type\":\"string\"}", "not joined");
    refused("{\"anyOf\":[{\"type\":\"string\"}],\"maxLength\":3}", "not joined");
    refused("{\"enum\":[1],\"const\":1}", "not joined");
    refused("{\"oneOf\":[{\"type\":\"string\"},{\"type\":\"string\",\"maxLength\":2}]}",
            "two branches");
    refused("{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"number\"}]}", "two branches");
    refused("{\"enum\":[\"a\"],\"type\":\"integer\"}", "not of the type");
    refused("{\"enum\":[]}", "not empty");
    refused("{\"type\":\"text\"}", "not known: text");
    refused("{\"required\":[\"a\"]}", "not in properties: a");
    refused("{\"minLength\":-1}", "0 to 65536");
    refused("{\"minLength\":5,\"maxLength\":2}", "greater than its maximum");
    refused("{\"maxItems\":99999999}", "65536");
    refused("{\"pattern\":\"a\",\"maxLength\":2}", "not both");
    refused("{\"pattern\":\"(a\"}", "without its )");
    refused("{\"$ref\":\"#\"}", "rule # (line 1) matches nothing");
    refused("{\"$ref\":\"http://example.org/s\"}", "local");
    refused("{\"$ref\":\"#/$defs/none\"}", "nothing is at");
    refused("false", "not false");
    refused("{\"type\":", "no JSON");
    refused("{\"type\":\"\xff\"}", "no JSON");
    refused("{\"type\":\"string\",\"type\":\"null\"}", "no JSON");
    for (int i = 0; i < 150; i++)
        strcat(deep, "{\"items\":");
    strcat(deep, "true");
    for (int i = 0; i < 150; i++)
        strcat(deep, "}");
    refused(deep, "100 schemas");
    memset(deep, '[', 50000);
    refused(deep, "no JSON");
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_walks), cmocka_unit_test(test_texts),
                                        cmocka_unit_test(test_refusals) };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    free(b.piece);
    free(b.len);
    return rc;
}
