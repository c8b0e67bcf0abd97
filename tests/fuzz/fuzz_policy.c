/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fuzz_policy.c - any text is a policy or an error with a message; a policy decides on any path.
 */
#include <stdlib.h>
#include <string.h>

#include "policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* The path under question follows the text after a NUL. */
    char *text = malloc(size + 1);
    const char *path;
    struct policy *p = NULL;
    struct err err = {0};
    unsigned caps;

    if (text == NULL)
        return 0;
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    path = strlen(text) < size ? text + strlen(text) + 1 : "t1/a/b/c";
    if (policy_parse("fuzz", text, &p, &err) != 0) {
        if (p != NULL || err.msg[0] == '\0')
            abort();
    } else {
        caps = acl_capabilities((const struct policy *const *)&p, 1, path, true);
        if (caps & (CAP_DENY | CAP_ROOT))
            abort(); /* denied is 0, and no text makes root */
        policy_free(p);
    }
    free(text);
    return 0;
}
