/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sys_tools.c - sys/tools/random, sys/tools/hash, sys/decode-token.
 */
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "core_private.h"
#include "sys.h"

#define RANDOM_MAX_BYTES (128 * 1024)

/* "hex" or "base64" of the field format. -1: answered. */
static int format_of(struct request *rq, struct response *rs, const char *dflt, bool *hexp)
{
    const char *format;

    if (field_str(rq, rs, "format", dflt, &format) != 0)
        return -1;
    *hexp = strcmp(format, "hex") == 0;
    if (*hexp || strcmp(format, "base64") == 0)
        return 0;
    reply_error(rs, 400, "unsupported encoding format \"%s\"; must be \"hex\" or \"base64\"",
                format);
    return -1;
}

static void reply_bytes(struct response *rs, const char *key, const uint8_t *data, size_t len,
                        bool hex)
{
    struct buf text = {.secret = true};

    if (hex)
        hex_write(&text, data, len);
    else
        base64_write(&text, data, len, true);
    reply_data(rs, text.failed ? NULL : json_pack("{s:s}", key, buf_str(&text)));
    buf_free(&text);
}

/* The count: the last element of the path when there is one, else the field. */
static int count_of(struct request *rq, struct response *rs, int64_t *np)
{
    const char *rest = rq->path + strlen("tools/random"), *last = strrchr(rest, '/');
    char *end;

    if (field_int(rq, rs, "bytes", 32, np) != 0)
        return -1;
    if (last != NULL && last[1] != '\0' && strcmp(last, "/platform") != 0) {
        *np = strtoll(last + 1, &end, 10);
        if (*end != '\0') {
            reply_error(
                rs, 400,
                "error parsing url-set byte count: strconv.Atoi: parsing \"%s\": invalid syntax",
                last + 1);
            return -1;
        }
    }
    if (*np < 1 || *np > RANDOM_MAX_BYTES) {
        if (*np < 1)
            reply_error(rs, 400, "'bytes' cannot be less than 1");
        else
            reply_error(rs, 400, "'bytes' should be less than %d", RANDOM_MAX_BYTES);
        return -1;
    }
    return 0;
}

void sys_random(struct request *rq, struct response *rs)
{
    uint8_t *data;
    int64_t n;
    bool hex;

    if (rq->path[strlen("tools/random")] != '\0' && rq->path[strlen("tools/random")] != '/') {
        reply_unsupported_path(rs);
        return;
    }
    if (rq->op != OP_WRITE) {
        reply_unsupported(rs);
        return;
    }
    if (count_of(rq, rs, &n) != 0 || format_of(rq, rs, "base64", &hex) != 0)
        return;
    data = arena_alloc(rq->arena, (size_t)n);
    if (data == NULL) {
        reply_router_error(rs, 500, "out of memory");
        return;
    }
    env_random(rq->core->env, data, (size_t)n);
    reply_bytes(rs, "random_bytes", data, (size_t)n, hex);
}

void sys_hash(struct request *rq, struct response *rs)
{
    static const struct {
        const char *name, *openssl;
    } algorithms[] = {{"sha2-224", "SHA224"},   {"sha2-256", "SHA256"},   {"sha2-384", "SHA384"},
                      {"sha2-512", "SHA512"},   {"sha3-224", "SHA3-224"}, {"sha3-256", "SHA3-256"},
                      {"sha3-384", "SHA3-384"}, {"sha3-512", "SHA3-512"}};
    const char *rest = rq->path + strlen("tools/hash"), *algorithm, *input;
    const EVP_MD *md = NULL;
    uint8_t sum[EVP_MAX_MD_SIZE], *data;
    unsigned sum_len = 0;
    size_t cap, len, bad;
    bool hex;

    if (*rest != '\0' && *rest != '/') {
        reply_unsupported_path(rs);
        return;
    }
    if (rq->op != OP_WRITE) {
        reply_unsupported(rs);
        return;
    }
    if (field_str(rq, rs, "algorithm", "sha2-256", &algorithm) != 0 ||
        field_str(rq, rs, "input", "", &input) != 0)
        return;
    if (rest[0] == '/' && rest[1] != '\0')
        algorithm = rest + 1;
    cap = strlen(input) + 1;
    data = arena_alloc(rq->arena, cap);
    if (data == NULL) {
        reply_router_error(rs, 500, "out of memory");
        return;
    }
    if (base64_read(input, true, data, cap, &len, &bad) != 0) {
        reply_error(rs, 400,
                    "unable to decode input as base64: illegal base64 data at input byte %zu", bad);
        return;
    }
    if (format_of(rq, rs, "hex", &hex) != 0)
        return;
    for (size_t i = 0; i < sizeof(algorithms) / sizeof(algorithms[0]); i++)
        if (strcmp(algorithm, algorithms[i].name) == 0)
            md = EVP_get_digestbyname(algorithms[i].openssl);
    if (md == NULL)
        reply_error(rs, 400, "unsupported algorithm %s", algorithm);
    else if (EVP_Digest(data, len, sum, &sum_len, md, NULL) != 1)
        reply_router_error(rs, 500, "digest failed");
    else
        reply_bytes(rs, "sum", sum, sum_len, hex);
}

void sys_decode_token(struct request *rq, struct response *rs)
{
    const char *encoded, *otp;
    uint8_t *data;
    char *token;
    size_t cap, len, bad;

    if (rq->op != OP_WRITE) {
        reply_error(rs, 405, "unsupported operation");
        return;
    }
    if (field_str(rq, rs, "encoded_token", "", &encoded) != 0 ||
        field_str(rq, rs, "otp", "", &otp) != 0)
        return;
    cap = strlen(encoded) + 1;
    data = arena_alloc(rq->arena, cap);
    token = arena_alloc(rq->arena, cap);
    if (data == NULL || token == NULL) {
        reply_router_error(rs, 500, "out of memory");
    } else if (base64_read(encoded, false, data, cap, &len, &bad) != 0) {
        reply_error(rs, 500, "error decoding base64'd token: illegal base64 data at input byte %zu",
                    bad);
    } else if (len != strlen(otp)) {
        reply_error(rs, 500,
                    "error xoring token: length of byte slices is not equivalent: %zu != %zu", len,
                    strlen(otp));
    } else {
        for (size_t i = 0; i < len; i++)
            token[i] = (char)(data[i] ^ (uint8_t)otp[i]);
        reply_data(rs, json_pack("{s:s}", "token", token));
        if (rs->data == NULL)
            reply_error(rs, 400, "the one-time pad does not belong to this token");
    }
}
