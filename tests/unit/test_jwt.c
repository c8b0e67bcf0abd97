/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <criterion/criterion.h>
#include <openssl/evp.h>
#include <string.h>

#include "jwt.h"

static struct buf key, token;
static struct err err;
static const struct jwt_claims claims = {.jti = "hvs.abc",
                                         .accessor = "acc",
                                         .addr = "https://127.0.0.1:8200",
                                         .type = "wrapping",
                                         .iat = 1700000005,
                                         .exp = 1700001805,
                                         .nbf = 1700000000};

static void setup(void)
{
    memset(&err, 0, sizeof(err));
    memset(&key, 0, sizeof(key));
    memset(&token, 0, sizeof(token));
    cr_assert_eq(jwt_key_new(&key, &err), 0, "%s", err.msg);
    cr_assert_eq(jwt_sign(buf_str(&key), &claims, &token, &err), 0, "%s", err.msg);
}

static void teardown(void)
{
    buf_free(&key);
    buf_free(&token);
}

TestSuite(jwt, .init = setup, .fini = teardown, .timeout = 60);

static void decode_part(const char *text, size_t len, char *out, size_t cap)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    uint32_t v = 0;
    size_t n = 0;
    int bits = 0;

    for (size_t i = 0; i < len; i++) {
        v = v << 6 | (uint32_t)(strchr(digits, text[i]) - digits);
        bits += 6;
        if (bits >= 8 && n + 1 < cap) {
            bits -= 8;
            out[n++] = (char)(v >> bits);
        }
    }
    out[n] = '\0';
}

Test(jwt, has_the_header_and_claims_of_vaults_tokens)
{
    const char *text = buf_str(&token), *dot = strchr(text, '.'), *dot2 = strchr(dot + 1, '.');
    char part[1024];

    decode_part(text, (size_t)(dot - text), part, sizeof(part));
    cr_assert_str_eq(part, "{\"alg\":\"ES512\",\"typ\":\"JWT\"}");
    decode_part(dot + 1, (size_t)(dot2 - dot - 1), part, sizeof(part));
    cr_assert_str_eq(
        part, "{\"accessor\":\"acc\",\"addr\":\"https://127.0.0.1:8200\",\"exp\":1700001805,"
              "\"iat\":1700000005,\"jti\":\"hvs.abc\",\"nbf\":1700000000,\"type\":\"wrapping\"}");
    cr_assert_eq(strlen(dot2 + 1), 176, "132 bytes in base64url without padding");
}

Test(jwt, verifies_with_its_key_and_gives_the_claims)
{
    struct jwt_claims c;

    cr_assert_eq(jwt_verify(buf_str(&token), buf_str(&key), &c, &err), 0, "%s", err.msg);
    cr_assert_str_eq(c.jti, claims.jti);
    cr_assert_str_eq(c.accessor, claims.accessor);
    cr_assert_str_eq(c.addr, claims.addr);
    cr_assert(c.iat == claims.iat && c.exp == claims.exp && c.nbf == claims.nbf);
    cr_assert_eq(jwt_parse(buf_str(&token), &c, &err), 0);
}

Test(jwt, another_key_does_not_verify_it)
{
    struct jwt_claims c;
    struct buf other = {0};

    cr_assert_eq(jwt_key_new(&other, &err), 0);
    cr_assert_eq(jwt_verify(buf_str(&token), buf_str(&other), &c, &err), -1);
    cr_assert_eq(err.code, ERR_INVAL);
    cr_assert_str_eq(err.msg, "wrapping token signature could not be validated");
    cr_assert_str_eq(c.jti, "");
    buf_free(&other);
}

Test(jwt, every_changed_character_is_refused)
{
    struct jwt_claims c;

    for (size_t i = 0; i < token.len; i++) {
        char was = (char)token.data[i];
        token.data[i] = (uint8_t)(was == 'A' ? 'B' : 'A');
        err_clear(&err);
        cr_assert_eq(jwt_verify(buf_str(&token), buf_str(&key), &c, &err), -1, "position %zu", i);
        cr_assert_eq(err.code, ERR_INVAL);
        token.data[i] = (uint8_t)was;
    }
}

Test(jwt, broken_tokens_are_named_in_vaults_words)
{
    static const struct {
        const char *token, *want;
    } cases[] = {
        {"", "wrapping token could not be parsed: compact JWS format must have three parts"},
        {"a.b", "wrapping token could not be parsed: compact JWS format must have three parts"},
        {"a.b.c.d", "wrapping token could not be parsed: compact JWS format must have three parts"},
        {"!.b.c", "wrapping token could not be parsed: its header is no base64url JSON object"},
        {"eyJhbGciOiJub25lIn0.e30.", "wrapping token could not be parsed: its alg is not ES512"},
        {"eyJhbGciOiJFUzUxMiJ9.e30.", "could not validate type claim"},
        {"eyJhbGciOiJFUzUxMiJ9.eyJ0eXBlIjoxfQ.", "could not parse type claim"},
        {"eyJhbGciOiJFUzUxMiJ9.eyJ0eXBlIjoieCJ9.", "unexpected type claim"},
        {"eyJhbGciOiJFUzUxMiJ9.eyJ0eXBlIjoid3JhcHBpbmcifQ.",
         "wrapping token could not be parsed: it has no jti claim"},
    };
    struct jwt_claims c;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        err_clear(&err);
        cr_assert_eq(jwt_parse(cases[i].token, &c, &err), -1, "%s", cases[i].token);
        cr_assert_str_eq(err.msg, cases[i].want);
    }
}

Test(jwt, other_types_cannot_pass_as_wrapping_tokens)
{
    struct jwt_claims c = claims, got;
    struct buf other = {0};

    strcpy(c.type, "login");
    cr_assert_eq(jwt_sign(buf_str(&key), &c, &other, &err), 0);
    cr_assert_eq(jwt_verify(buf_str(&other), buf_str(&key), &got, &err), -1);
    cr_assert_str_eq(err.msg, "unexpected type claim");
    buf_free(&other);
}
