/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * raw.c - fields and texts of the endpoints that Vault answers outside its field schema: init,
 * unseal, generate-root, rekey.
 *
 * There a wrong type is refused, never converted, as Go's JSON decoder does.
 */
#include <string.h>

#include "core_private.h"
#include "json_private.h"

static int wrong_type(struct response *rs, const json_t *v, const char *name, const char *want)
{
    bool number = json_is_number(v) || json_kept_number(v) != NULL;
    const char *got = json_is_object(v)   ? "object"
                      : json_is_array(v)  ? "array"
                      : number            ? "number"
                      : json_is_string(v) ? "string"
                                          : "bool";

    reply_error(rs, 400,
                "failed to parse JSON input: json: cannot unmarshal %s into field %s of type %s",
                got, name, want);
    return -1;
}

static const json_t *given(struct request *rq, const char *name)
{
    const json_t *v = json_object_get(rq->data, name);

    return json_is_null(v) ? NULL : v;
}

int raw_str(struct request *rq, struct response *rs, const char *name, const char **outp)
{
    const json_t *v = given(rq, name);

    *outp = "";
    if (v == NULL)
        return 0;
    if (!json_is_string(v) || json_kept_number(v) != NULL)
        return wrong_type(rs, v, name, "string");
    *outp = json_string_value(v);
    return 0;
}

int raw_int(struct request *rq, struct response *rs, const char *name, int64_t *outp)
{
    const json_t *v = given(rq, name);

    *outp = 0;
    if (v == NULL)
        return 0;
    if (!json_is_integer(v))
        return wrong_type(rs, v, name, "int");
    *outp = json_integer_value(v);
    return 0;
}

int raw_bool(struct request *rq, struct response *rs, const char *name, bool *outp)
{
    const json_t *v = given(rq, name);

    *outp = false;
    if (v == NULL)
        return 0;
    if (!json_is_boolean(v))
        return wrong_type(rs, v, name, "bool");
    *outp = json_is_true(v);
    return 0;
}

/* A trial, so that nothing begins which could not end. */
static int try_pgp(struct response *rs, const char *const *keys, size_t n, const char *prefix,
                   json_t *fingerprints)
{
    struct err err = {0};

    if (pgp_try(keys, n, fingerprints, &err) == 0)
        return 0;
    if (err.code == ERR_INVAL)
        reply_error(rs, 400, "%s%s", prefix, err.msg);
    else if (err.code == ERR_BUSY)
        reply_error(rs, 503, "%s", err.msg);
    else
        reply_err(rs, &err);
    return -1;
}

int raw_pgp_key(struct response *rs, const char *key, const char *prefix,
                char fingerprint[PGP_FINGERPRINT_BYTES])
{
    json_t *list;
    int rc;

    fingerprint[0] = '\0';
    if (key[0] == '\0')
        return 0;
    list = json_array();
    if (list == NULL) {
        reply_router_error(rs, 500, "out of memory");
        return -1;
    }
    rc = try_pgp(rs, &key, 1, prefix, list);
    if (rc == 0)
        snprintf(fingerprint, PGP_FINGERPRINT_BYTES, "%s",
                 json_string_value(json_array_get(list, 0)));
    json_decref(list);
    return rc;
}

int raw_pgp_keys(struct request *rq, struct response *rs, int64_t shares, bool rekey,
                 const json_t **keysp, json_t *fingerprints)
{
    const json_t *keys = given(rq, "pgp_keys"), *v;
    const char *text[SHAMIR_SHARES_MAX];
    size_t i;

    *keysp = NULL;
    if (keys != NULL && !json_is_array(keys))
        return wrong_type(rs, keys, "pgp_keys", "[]string");
    if (json_array_size(keys) == 0)
        return 0;
    json_array_foreach(keys, i, v)
    {
        if (!json_is_string(v) && !json_is_null(v))
            return wrong_type(rs, v, "pgp_keys", "string");
        if (i < SHAMIR_SHARES_MAX)
            text[i] = json_is_null(v) ? "" : json_string_value(v);
    }
    if ((int64_t)json_array_size(keys) != shares || shares > SHAMIR_SHARES_MAX) {
        reply_error(rs, 400, "%s%s", rekey ? "" : "invalid seal configuration: ",
                    rekey ? "incorrect number of PGP keys for rekey"
                          : "count mismatch between number of provided PGP keys and number of "
                            "shares");
        return -1;
    }
    *keysp = keys;
    return try_pgp(rs, text, (size_t)shares,
                   rekey ? "invalid rekey seal configuration: " : "invalid seal configuration: ",
                   fingerprints);
}

/* ---- base64 and hex ---- */

static int b64_digit(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

int base64_read(const char *text, bool padded, uint8_t *out, size_t cap, size_t *lenp, size_t *badp)
{
    size_t n = strlen(text), digits = n, bits = 0, len = 0;
    uint32_t acc = 0;

    *badp = 0;
    *lenp = 0;
    if (padded) {
        while (digits > 0 && n - digits < 2 && text[digits - 1] == '=')
            digits--;
    }
    for (size_t i = 0; i < digits; i++) {
        int d = b64_digit(text[i]);
        if (d < 0) {
            *badp = i;
            return -1;
        }
        acc = acc << 6 | (uint32_t)d;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            if (len < cap)
                out[len] = (uint8_t)(acc >> bits);
            len++;
        }
    }
    acc = 0;
    if (digits % 4 == 1 || (padded && n % 4 != 0)) {
        *badp = n - n % 4;
        return -1;
    }
    *lenp = len;
    return 0;
}

void base64_write(struct buf *out, const uint8_t *data, size_t len, bool padded)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    for (size_t i = 0; i < len; i += 3) {
        size_t n = len - i < 3 ? len - i : 3;
        uint32_t v = (uint32_t)data[i] << 16 | (n > 1 ? (uint32_t)data[i + 1] << 8 : 0) |
                     (n > 2 ? data[i + 2] : 0u);
        char four[4];

        for (size_t k = 0; k < 4; k++)
            four[k] = k <= n ? alphabet[v >> (18 - 6 * k) & 63] : '=';
        buf_add(out, four, padded ? 4 : n + 1);
    }
}

void hex_of(const uint8_t *data, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < len; i++) {
        out[2 * i] = digits[data[i] >> 4];
        out[2 * i + 1] = digits[data[i] & 15];
    }
    out[2 * len] = '\0';
}

void hex_write(struct buf *out, const uint8_t *data, size_t len)
{
    uint8_t *at = buf_reserve(out, 2 * len);

    if (at == NULL)
        return;
    hex_of(data, len, (char *)at);
    buf_filled(out, 2 * len);
}
