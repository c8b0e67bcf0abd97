/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cli.h - what the verbs of the operator CLI share: flags, the API client, the output forms.
 *
 * Exit codes are Vault's: 0 fine, 1 local (flags, input), 2 remote (API, TLS, network). Flags come
 * before arguments, with one or two dashes, `-name=value` or `-name value`; flags beat the
 * environment.
 */
#ifndef LOCKSTEP_CLI_H
#define LOCKSTEP_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <time.h>

#include "buf.h"
#include "errors.h"

#define EXIT_LOCAL 1
#define EXIT_REMOTE 2

/* ---- flags ---- */
enum flag_kind { FLAG_STR, FLAG_BOOL, FLAG_INT, FLAG_DURATION, FLAG_LIST, FLAG_SECRET };
struct flag_list {
    const char *values[64];
    size_t n;
};
struct flag {
    const char *name;
    enum flag_kind kind;
    void *value; /* const char **, bool *, int64_t * (seconds for durations), struct flag_list * */
    /* FLAG_SECRET: const char **; given as -, it is asked for, hidden, and owned by the
     * client, so that it stands in no list of processes */
    const char *help;
};
struct client;

/**
 * Parse the verb's flags (and, when c is given, the common ones into c). argv[0] is the first word
 * after the verb. Returns how many words were flags, -1 after printing an error, -2 after printing
 * help.
 */
int flags_parse(const char *usage, const struct flag *flags, size_t n, struct client *c, int argc,
                char **argv);
#define WORDS_ANY 1000000
/**
 * Begin a verb that talks to the server: c is made, flags are parsed, min to max words follow them.
 * Returns the first word's index; or -1, with c freed and *rcp the exit code: help was printed, or
 * what is wrong.
 */
int verb_begin(const char *usage, const struct flag *flags, size_t n, struct client *c, int argc,
               char **argv, int min, int max, int *rcp);
/** "90", "30m", "1h30m", "768h" to seconds. */
int duration_parse(const char *text, int64_t *secondsp);

/* ---- the API client (client.c) ---- */
enum out_format { OUT_TABLE, OUT_JSON, OUT_YAML };
struct client {
    const char *addr, *token, *ns, *cacert, *capath, *client_cert, *client_key, *tls_server_name;
    const char *wrap_ttl, *field, *format_name;
    bool skip_verify, output_curl, no_token;
    bool quiet;          /* no word, at a terminal, that a call waits */
    bool takes_dr_token; /* the verb has -dr-token */
    int64_t timeout_s, max_retries;
    enum out_format format;
    struct buf token_file; /* owned: token read from ~/.vault-token */
    struct buf asked[2];   /* owned: secrets that were asked for */
};
struct reply {
    int status;
    json_t *json;    /* parsed body or NULL */
    struct buf body; /* secret */
    char url[1024];
    char method[8];
};
void client_init(struct client *c);
void client_free(struct client *c);
/** path without /v1/. body may be NULL (nothing is sent). 0 when an answer came, whatever its
 * status. */
/* A PATCH body is sent as application/merge-patch+json. */
int client_call(struct client *c, const char *method, const char *path, const json_t *body,
                struct reply *r, struct err *err);
/**
 * GET path, the body to fd. r gets the status, and the body of an answer that is an error. No
 * overall time limit: a body that stands still for a minute is given up. progress (may be NULL) is
 * called with the bytes so far.
 */
int client_download(struct client *c, const char *path, int fd,
                    void (*progress)(void *arg, uint64_t bytes), void *arg, struct reply *r,
                    struct err *err);
void reply_free(struct reply *r);
static inline bool reply_ok(const struct reply *r)
{
    return r->status >= 200 && r->status < 300;
}
/** Print Vault's error block to stderr: "<doing>: Error making API request. ..." Returns
 * EXIT_REMOTE. */
int reply_fail(const struct client *c, const struct reply *r, const struct err *err,
               const char *doing);
int token_file_write(const char *token,
                     struct err *err); /* ~/.vault-token, 0600, replaced as a whole */
int token_file_erase(struct err *err);

/* ---- output (format.c) ---- */
/** Print an answer in the chosen form; path is for messages. Returns the exit code. */
int output_secret(const struct client *c, const struct reply *r);
/** data alone, as a key/value table or in the chosen form. */
int output_data(const struct client *c, const json_t *data);
/** One call of a verb: its answer's data is printed, or done (with the warnings) when it is not
 * NULL. Frees body and c. Returns the exit code. */
int verb_call(struct client *c, const char *method, const char *path, json_t *body,
              const char *doing, const char *done);
/** The list form: "Keys". */
int output_list(const struct client *c, const json_t *keys);
int output_json(const json_t *v);
int output_yaml(const json_t *v);
int output_field(const json_t *v, const char *field);
void output_warnings(const json_t *answer);
/** rows of n_cols cells, aligned with four spaces; the first row is the header when underline. */
struct table {
    char **cells;
    size_t n, cols;
};
void table_add(struct table *t, const char *cell); /* copies; "n/a" for an empty one */
void table_addf(struct table *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
void table_print(struct table *t, bool underline); /* and frees */
/** Go's %v of a plain value or a list of them; an object as JSON on one line. */
void go_value(struct buf *out, const json_t *v);
void go_quoted_list(struct buf *out, const json_t *v); /* ["a" "b"] */
void human_duration(struct buf *out, int64_t seconds);
/** "=== Data ===" wide enough for the table of data. */
void output_header(const char *title, const json_t *data);

/* ---- replication status (replication_view.c) ---- */
#define CHECK_LAG 3 /* exit codes of checks, documented in the man page */
#define CHECK_UNHEALTHY 4
#define CHECK_DISABLED 5
/** *datap is part of r. -1: err is filled, or empty and r has the answer. */
int replication_fetch(struct client *c, struct reply *r, const json_t **datap, struct err *err);
/** For people, or in the chosen form. Returns the exit code. */
int replication_print(const struct client *c, const json_t *data);
void replication_line(struct buf *out, const json_t *data); /* one line, without its end */
/** Print what does not hold, or one line that all does; the exit code. data NULL: only read the
 * checks. */
int replication_check(const json_t *data, const struct flag_list *checks);
/** "2s", "1.5", "200ms" to milliseconds. 0 or -1. */
int replication_duration(const char *text, double *msp);
/** "16MiB", "4096" to bytes. 0 or -1. */
int replication_bytes(const char *text, double *bytesp);

/* ---- progress (show_progress.c): on stderr, after two seconds ---- */
struct show_progress {
    const char *doing;
    struct timespec start;
    double shown_s;
};
void show_begin(struct show_progress *p, const char *doing);
bool show_due(struct show_progress *p); /* it is time for a line */
void show_bytes(void *progress, uint64_t bytes);
void show_part(void *progress, uint64_t done, uint64_t all); /* bytes */
void json_add_hex(json_t *o, const char *name, const uint8_t *data, size_t len);
void json_add_time(json_t *o, const char *name, int64_t ms); /* RFC 3339 */

/* ---- before something is lost (confirm.c) ---- */
#define YES_FLAGS(yes)                                                                             \
    {"yes", FLAG_BOOL, &(yes), "Do not ask."},                                                     \
    {                                                                                              \
        "y", FLAG_BOOL, &(yes), "The same."                                                        \
    }
bool at_terminal(void); /* standard input and output are one */
/** Only "yes" is; else it says that nothing was changed. The answer is a line of standard input. */
bool confirm(const char *question);
/** Say at a terminal what will be lost, and ask. true: go on; also without a terminal. */
bool may_lose(bool yes, const char *question, const char *fmt, ...) PRINTF_LIKE(3, 4);
struct replication_said {
    char mode[16];          /* empty: not read */
    struct buf secondaries; /* owned: a sentence that begins with a space, or empty */
};
/** For may_lose: who follows this cluster. Nothing is read where may_lose will not ask. */
void replication_said(struct client *c, bool yes, struct replication_said *out);

/* ---- input ---- */
/** k=v words (v: @file, - for stdin) to an object. */
int kv_args(int argc, char **argv, json_t **outp);
/** Read a line without echo from the terminal, or from stdin. Secret. 0 or -1. */
int read_hidden(const char *prompt, struct buf *out);
int read_file(const char *path, struct buf *out, struct err *err); /* "-": stdin */

/* ---- verbs ---- */
struct verb {
    const char *name;
    int (*run)(int argc, char **argv); /* argv[0] is the first word after the verb */
    const char *help;
};
/** Run argv[0] from the table or print the help of the group. */
int verb_run(const char *group, const struct verb *verbs, size_t n, int argc, char **argv);

int cmd_server(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_login(int argc, char **argv);
int cmd_read(int argc, char **argv);
int cmd_write(int argc, char **argv);
int cmd_list(int argc, char **argv);
int cmd_delete(int argc, char **argv);
int cmd_unwrap(int argc, char **argv);
int cmd_patch(int argc, char **argv);
int cmd_path_help(int argc, char **argv);
int cmd_kv(int argc, char **argv);
int cmd_secrets(int argc, char **argv);
int cmd_auth(int argc, char **argv);
int cmd_policy(int argc, char **argv);
int cmd_audit(int argc, char **argv);
int cmd_token(int argc, char **argv);
int cmd_operator(int argc, char **argv);
int cmd_replication(int argc, char **argv);
int replication_drill(int argc, char **argv);     /* cmd_drill.c */
int replication_mode(int argc, char **argv);      /* cmd_modes.c */
int replication_watch(int argc, char **argv);     /* cmd_watch.c */
int replication_retention(int argc, char **argv); /* cmd_retention.c */
int replication_doctor(int argc, char **argv);    /* cmd_doctor.c */
int replication_promote(int argc, char **argv);   /* cmd_act.c */
int replication_aside(int argc, char **argv);     /* cmd_aside.c */
int replication_switchover(int argc, char **argv);
int replication_lost(int argc, char **argv); /* cmd_lost.c */
int replication_quorum(int argc, char **argv);
int operator_snapshot(int argc, char **argv);  /* cmd_snapshot.c */
int operator_restore(int argc, char **argv);   /* cmd_restore.c */
int replication_demote(int argc, char **argv); /* cmd_roles.c */
int replication_disable(int argc, char **argv);
int replication_update_primary(int argc, char **argv);
int replication_revoke(int argc, char **argv);
int cmd_wal(int argc, char **argv);
int cmd_cert(int argc, char **argv);
int cmd_version(int argc, char **argv);

#endif
