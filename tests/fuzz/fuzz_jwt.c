/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A token of a stranger: never believed without our signature, never read past its end. */
#include <stdlib.h>
#include <string.h>

#include "jwt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct buf key;
    struct jwt_claims c;
    struct err err = {0};
    char *text = malloc(size + 1);

    if (text == NULL || (key.len == 0 && jwt_key_new(&key, &err) != 0))
        abort();
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    if (jwt_parse(text, &c, &err) == 0 && (c.jti[0] == '\0' || strcmp(c.type, "wrapping") != 0))
        abort();
    if (jwt_verify(text, buf_str(&key), &c, &err) == 0)
        abort();
    free(text);
    return 0;
}
