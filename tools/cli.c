/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cli.c - flags, verb tables and input of the operator CLI. Nothing here talks to a server.
 */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

int duration_parse(const char *text, int64_t *secondsp)
{
    double total = 0;
    const char *p = text;
    char *end;

    if (*p == '\0')
        return -1;
    while (*p != '\0') {
        double v = strtod(p, &end);
        if (end == p || v < 0)
            return -1;
        p = end;
        if (*p == '\0' && total == 0) {
            total = v; /* a bare number is seconds */
        } else if (strncmp(p, "ms", 2) == 0) {
            total += v / 1000;
            p += 2;
        } else if (*p == 's' || *p == 'm' || *p == 'h' || *p == 'd') {
            total += v * (*p == 's' ? 1 : *p == 'm' ? 60 : *p == 'h' ? 3600 : 86400);
            p++;
        } else {
            return -1;
        }
    }
    *secondsp = (int64_t)total;
    return 0;
}

static int flag_bool(const char *text, bool *outp)
{
    static const char *const yes[] = {"1", "t", "T", "true", "TRUE", "True"};
    static const char *const no[] = {"0", "f", "F", "false", "FALSE", "False"};

    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
        if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
            *outp = strcmp(text, yes[i]) == 0;
            return 0;
        }
    }
    return -1;
}

static int flag_take(const struct flag *f, const char *text)
{
    struct flag_list *list;
    char *end;

    switch (f->kind) {
    case FLAG_STR:
    case FLAG_SECRET:
        *(const char **)f->value = text;
        return 0;
    case FLAG_BOOL:
        return flag_bool(text, f->value);
    case FLAG_INT:
        errno = 0;
        *(int64_t *)f->value = strtoll(text, &end, 10);
        return *text == '\0' || *end != '\0' || errno != 0 ? -1 : 0;
    case FLAG_DURATION:
        return duration_parse(text, f->value);
    case FLAG_LIST:
        list = f->value;
        if (list->n == sizeof(list->values) / sizeof(list->values[0]))
            return -1;
        list->values[list->n++] = text;
        return 0;
    }
    return -1;
}

static void flags_help(const char *usage, const struct flag *flags, size_t n,
                       const struct flag *common, size_t n_common)
{
    static const char *const kinds[] = {"=<string>",   "",          "=<int>",
                                        "=<duration>", "=<string>", "=<string>"};

    printf("Usage: lockstep %s\n", usage);
    if (n > 0)
        printf("\nOptions:\n");
    for (size_t i = 0; i < n; i++)
        printf("\n  -%s%s\n      %s\n", flags[i].name, kinds[flags[i].kind], flags[i].help);
    if (n_common > 0)
        printf("\nHTTP options:\n");
    for (size_t i = 0; i < n_common; i++)
        printf("\n  -%s%s\n      %s\n", common[i].name, kinds[common[i].kind], common[i].help);
}

static const struct flag *flag_find(const struct flag *flags, size_t n, const char *name,
                                    size_t len)
{
    for (size_t i = 0; i < n; i++)
        if (strlen(flags[i].name) == len && strncmp(flags[i].name, name, len) == 0)
            return &flags[i];
    return NULL;
}

/* Of a usage, the words before the first "[options]", "<command>" or "-flag=...". */
static size_t command_len(const char *usage)
{
    size_t n = 0;

    while (usage[n] != '\0' && !(usage[n] == ' ' && strchr("[<-", usage[n + 1]) != NULL))
        n++;
    return n;
}

/* What was given as "-". */
static int secrets_ask(const struct flag *flags, size_t n, struct client *c)
{
    struct buf *to = c->asked;

    for (size_t i = 0; i < n; i++) {
        const char **value = flags[i].value;
        char prompt[80];

        if (flags[i].kind != FLAG_SECRET || *value == NULL || strcmp(*value, "-") != 0)
            continue;
        snprintf(prompt, sizeof(prompt), "-%s (will be hidden): ", flags[i].name);
        if (read_hidden(prompt, to) != 0) {
            fprintf(stderr, "Error: no -%s was given\n", flags[i].name);
            return -1;
        }
        *value = buf_str(to++);
    }
    return 0;
}

int flags_parse(const char *usage, const struct flag *flags, size_t n, struct client *c, int argc,
                char **argv)
{
    struct flag common[] = {
        {"address", FLAG_STR, c ? &c->addr : NULL,
         "Address of the server (VAULT_ADDR; default https://127.0.0.1:8200)."},
        {"ca-cert", FLAG_STR, c ? &c->cacert : NULL,
         "PEM file of the CA that signed the server's certificate (VAULT_CACERT)."},
        {"ca-path", FLAG_STR, c ? &c->capath : NULL,
         "Directory of PEM files of CAs (VAULT_CAPATH)."},
        {"client-cert", FLAG_STR, c ? &c->client_cert : NULL,
         "PEM certificate to show to the server (VAULT_CLIENT_CERT)."},
        {"client-key", FLAG_STR, c ? &c->client_key : NULL, "Its private key (VAULT_CLIENT_KEY)."},
        {"tls-skip-verify", FLAG_BOOL, c ? &c->skip_verify : NULL,
         "Do not check the server's certificate (VAULT_SKIP_VERIFY). Unsafe."},
        {"namespace", FLAG_STR, c ? &c->ns : NULL, "Namespace (VAULT_NAMESPACE)."},
        {"wrap-ttl", FLAG_STR, c ? &c->wrap_ttl : NULL,
         "Wrap the answer in a single-use token of this lifetime (VAULT_WRAP_TTL)."},
        {"field", FLAG_STR, c ? &c->field : NULL, "Print only this field."},
        {"format", FLAG_STR, c ? &c->format_name : NULL, "table, json or yaml (VAULT_FORMAT)."},
        {"output-curl-string", FLAG_BOOL, c ? &c->output_curl : NULL,
         "Print the equivalent curl command and do nothing."},
    };
    size_t n_common = c ? sizeof(common) / sizeof(common[0]) : 0;
    int i;

    for (i = 0; i < argc; i++) {
        const char *w = argv[i], *eq;
        const struct flag *f;
        size_t len;

        if (w[0] != '-' || w[1] == '\0')
            break;
        w += w[1] == '-' ? 2 : 1;
        if (*w == '\0') { /* "--" ends the flags */
            i++;
            break;
        }
        if (strcmp(w, "h") == 0 || strcmp(w, "help") == 0) {
            flags_help(usage, flags, n, common, n_common);
            return -2;
        }
        eq = strchr(w, '=');
        len = eq ? (size_t)(eq - w) : strlen(w);
        f = flag_find(flags, n, w, len);
        if (f == NULL)
            f = flag_find(common, n_common, w, len);
        if (f == NULL) {
            fprintf(stderr, "flag provided but not defined: -%.*s\nSee `lockstep %.*s -help`.\n",
                    (int)len, w, (int)command_len(usage), usage);
            return -1;
        }
        if (eq == NULL && f->kind == FLAG_BOOL) {
            *(bool *)f->value = true;
            continue;
        }
        if (eq == NULL && i + 1 >= argc) {
            fprintf(stderr, "flag needs an argument: -%s\n", f->name);
            return -1;
        }
        if (flag_take(f, eq ? eq + 1 : argv[++i]) != 0) {
            fprintf(stderr, "invalid value for flag -%s: \"%s\"\n", f->name, eq ? eq + 1 : argv[i]);
            return -1;
        }
    }
    if (c != NULL && c->format_name != NULL) {
        if (strcmp(c->format_name, "table") == 0)
            c->format = OUT_TABLE;
        else if (strcmp(c->format_name, "json") == 0)
            c->format = OUT_JSON;
        else if (strcmp(c->format_name, "yaml") == 0 || strcmp(c->format_name, "yml") == 0)
            c->format = OUT_YAML;
        else {
            fprintf(stderr, "Invalid output format: %s (use table, json or yaml)\n",
                    c->format_name);
            return -1;
        }
    }
    if (c != NULL)
        c->takes_dr_token = flag_find(flags, n, "dr-token", 8) != NULL;
    return c != NULL && secrets_ask(flags, n, c) != 0 ? -1 : i;
}

int verb_run(const char *group, const struct verb *verbs, size_t n, int argc, char **argv)
{
    bool help = argc < 1 || strcmp(argv[0], "-h") == 0 || strcmp(argv[0], "-help") == 0 ||
                strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "help") == 0;
    FILE *out = help && argc > 0 ? stdout : stderr;

    for (size_t i = 0; !help && i < n; i++)
        if (strcmp(verbs[i].name, argv[0]) == 0)
            return verbs[i].run(argc - 1, argv + 1);
    if (!help)
        fprintf(out, "lockstep%s%s: no such command: %s\n\n", *group ? " " : "", group, argv[0]);
    fprintf(out, "Usage: lockstep %s%s<command> [options] [args]\n\nCommands:\n", group,
            *group ? " " : "");
    for (size_t i = 0; i < n; i++)
        fprintf(out, "    %-20s %s\n", verbs[i].name, verbs[i].help);
    return help && argc > 0 ? 0 : EXIT_LOCAL;
}

int read_file(const char *path, struct buf *out, struct err *err)
{
    int fd = strcmp(path, "-") == 0 ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = -1;

    if (fd < 0)
        return err_set(err, ERR_IO, errno, "open %s", path);
    for (;;) {
        uint8_t *to = buf_reserve(out, 65536);
        if (to == NULL)
            break;
        got = read(fd, to, 65536);
        if (got <= 0)
            break;
        buf_filled(out, (size_t)got);
        if (out->len > (33u << 20))
            break;
    }
    if (fd != STDIN_FILENO)
        close(fd);
    if (got < 0)
        return err_set(err, ERR_IO, errno, "read %s", path);
    if (got > 0)
        return err_set(err, ERR_INVAL, 0, "%s is larger than a request may be", path);
    return buf_check(out, err);
}

int kv_args(int argc, char **argv, json_t **outp)
{
    json_t *obj = json_object();
    struct err err = {0};

    *outp = NULL;
    if (obj == NULL)
        return -1;
    if (argc == 1 && (strcmp(argv[0], "-") == 0 || argv[0][0] == '@')) { /* a whole JSON document */
        struct buf text = {.secret = true};
        json_error_t je;
        json_t *doc = NULL;

        if (read_file(argv[0][0] == '@' ? argv[0] + 1 : "-", &text, &err) == 0) {
            doc = json_loadb((const char *)text.data, text.len, JSON_DECODE_ANY, &je);
            if (!json_is_object(doc))
                fprintf(stderr, "Failed to parse K=V data: %s is not a JSON object: %s\n", argv[0],
                        je.text);
        } else {
            fprintf(stderr, "Failed to parse K=V data: %s\n", err.msg);
        }
        buf_free(&text);
        json_decref(obj);
        if (!json_is_object(doc)) {
            json_decref(doc);
            return -1;
        }
        *outp = doc;
        return 0;
    }
    for (int i = 0; i < argc; i++) {
        char *eq = strchr(argv[i], '=');
        struct buf value = {.secret = true};
        json_t *v, *old;
        char key[512];

        if (eq == NULL || (size_t)(eq - argv[i]) >= sizeof(key)) {
            fprintf(stderr,
                    "Failed to parse K=V data: invalid key/value pair \"%s\": format must be "
                    "key=value\n",
                    argv[i]);
            json_decref(obj);
            return -1;
        }
        snprintf(key, sizeof(key), "%.*s", (int)(eq - argv[i]), argv[i]);
        if (eq[1] == '@' || strcmp(eq + 1, "-") == 0) {
            if (read_file(eq[1] == '@' ? eq + 2 : "-", &value, &err) != 0) {
                fprintf(stderr, "Failed to parse K=V data: %s\n", err.msg);
                json_decref(obj);
                return -1;
            }
        } else {
            buf_adds(&value, eq[1] == '\\' && eq[2] == '@' ? eq + 2 : eq + 1);
        }
        v = json_stringn(buf_str(&value), value.len);
        buf_free(&value);
        old = json_object_get(obj, key);
        if (v == NULL) {
            fprintf(stderr, "Failed to parse K=V data: the value of %s is not valid UTF-8\n", key);
            json_decref(obj);
            return -1;
        }
        if (json_is_array(old)) { /* a repeated key becomes a list */
            json_array_append_new(old, v);
        } else if (old != NULL) {
            json_t *list = json_array();
            json_array_append(list, old);
            json_array_append_new(list, v);
            json_object_set_new(obj, key, list);
        } else {
            json_object_set_new(obj, key, v);
        }
    }
    *outp = obj;
    return 0;
}

int read_hidden(const char *prompt, struct buf *out)
{
    struct termios old, quiet;
    bool tty = isatty(STDIN_FILENO);
    char c;
    ssize_t got;

    out->secret = true;
    if (tty) {
        fprintf(stderr, "%s", prompt);
        if (tcgetattr(STDIN_FILENO, &old) != 0)
            return -1;
        quiet = old;
        quiet.c_lflag &= ~(tcflag_t)ECHO;
        if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet) != 0)
            return -1;
    }
    while ((got = read(STDIN_FILENO, &c, 1)) == 1 && c != '\n' && out->len < 65536)
        if (c != '\r')
            buf_addc(out, c);
    if (tty) {
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &old);
        fprintf(stderr, "\n");
    }
    return out->failed || (got != 1 && out->len == 0) ? -1 : 0;
}

int verb_begin(const char *usage, const struct flag *flags, size_t n, struct client *c, int argc,
               char **argv, int min, int max, int *rcp)
{
    int i, words;

    client_init(c);
    i = flags_parse(usage, flags, n, c, argc, argv);
    *rcp = i == -2 ? 0 : EXIT_LOCAL;
    words = argc - i;
    if (i >= 0 && (words < min || words > max)) {
        fprintf(stderr, "%s arguments (expected %d, got %d)\nUsage: lockstep %s\n",
                words < min ? "Not enough" : "Too many", words < min ? min : max, words, usage);
        i = -1;
    }
    if (i < 0)
        client_free(c);
    return i < 0 ? -1 : i;
}

int verb_call(struct client *c, const char *method, const char *path, json_t *body,
              const char *doing, const char *done)
{
    struct reply r = {0};
    struct err err = {0};
    int rc = EXIT_REMOTE;

    if (strcmp(method, "GET") != 0)
        c->max_retries = 0; /* a change that waits is met by a second try, which hides why */
    if (client_call(c, method, path, body, &r, &err) != 0 || !reply_ok(&r)) {
        reply_fail(c, &r, &err, doing);
    } else if (done == NULL) {
        rc = output_data(c, json_object_get(r.json, "data"));
    } else {
        output_warnings(r.json);
        printf("%s\n", done);
        rc = 0;
    }
    json_decref(body);
    reply_free(&r);
    client_free(c);
    return rc;
}
