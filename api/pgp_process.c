/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * pgp_process.c - a process of its own for what reads OpenPGP keys: the server's side, and its own.
 *
 * It is this program again, with one end of a socket pair as stdin and stdout, and nothing else of
 * ours open. Request: the text to encrypt, NUL, each key with a NUL, end of file. Answer: '+', each
 * fingerprint with a NUL, the message to the last key; or '-' and why not, as the caller may be
 * told. A '.' at its end says that it is whole.
 */
#include "pgp.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "barrier.h"
#include "cluster_private.h"
#include "core_private.h"
#include "process.h"

#define REQUEST_MAX_BYTES (PGP_PLAIN_MAX_BYTES + 1 + SHAMIR_SHARES_MAX * (PGP_KEY_MAX_CHARS + 1))
#define ANSWER_MAX_BYTES ((size_t)64 << 10)

/* To the end of file, or the time. -1: errno; EMSGSIZE: more than max. */
static int read_all(int fd, size_t max, int64_t end_ns, struct buf *out)
{
    out->secret = true;
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int64_t left = (end_ns - env_mono_ns(env_real())) / 1000000;
        uint8_t *at = buf_reserve(out, 4096);
        ssize_t n;

        if (left <= 0 || poll(&p, 1, (int)left) == 0) {
            errno = ETIMEDOUT;
            return -1;
        }
        n = at != NULL ? read(fd, at, 4096) : -1;
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return (int)n;
        out->len += (size_t)n;
        if (out->len > max) {
            errno = EMSGSIZE;
            return -1;
        }
    }
}

static int write_all(int fd, const uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

static int64_t deadline_ns(void)
{
    return env_mono_ns(env_real()) + PGP_LIMIT_S * INT64_C(1000000000);
}

/* ---- the process ---- */

static void confine(void)
{
    static const struct rlimit cpu = {PGP_CPU_S, PGP_CPU_S}, none = {0, 0};
    struct err err = {0};

    (void)!memory_protect(true, &err); /* locked as far as it may be */
    (void)setrlimit(RLIMIT_CPU, &cpu);
    (void)setrlimit(RLIMIT_FSIZE, &none);
    (void)setrlimit(RLIMIT_NPROC, &none);
    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

/* Each key of the request in turn. */
static int answer_keys(const struct buf *in, struct buf *out, struct err *err)
{
    const char *plain = (const char *)in->data, *end = plain + in->len;
    size_t len = strnlen(plain, in->len);
    struct buf message = {0};
    int rc = 0;

    buf_addc(out, '+');
    for (const char *key = plain + len + 1; key < end && rc == 0; key += strlen(key) + 1) {
        char fingerprint[PGP_FINGERPRINT_BYTES];

        if (memchr(key, '\0', (size_t)(end - key)) == NULL) {
            rc = err_set(err, ERR_PROTO, 0, "request");
            break;
        }
        buf_clear(&message);
        rc = pgp_encrypt_here(key, plain, len, &message, fingerprint, err);
        if (rc == 0)
            buf_add(out, fingerprint, strlen(fingerprint) + 1);
    }
    buf_add(out, message.data, message.len);
    buf_free(&message);
    return rc;
}

int pgp_main(void)
{
    struct buf in = {0}, out = {0};
    struct err err = {0};
    int rc = 1;

    confine();
    if (read_all(STDIN_FILENO, REQUEST_MAX_BYTES, deadline_ns(), &in) == 0 && in.len > 0) {
        rc = answer_keys(&in, &out, &err) != 0;
        if (rc != 0 && err.code == ERR_INVAL) {
            buf_clear(&out);
            buf_printf(&out, "-%s", err.msg);
            rc = 0;
        }
        buf_addc(&out, '.');
        if (rc == 0)
            rc = out.failed || write_all(STDOUT_FILENO, out.data, out.len) != 0;
    }
    buf_free(&in);
    buf_free(&out);
    return rc;
}

/* ---- the server ---- */

struct pgp_call {
    struct buf request, answer;
    int sys;     /* errno of what failed here; 0: the answer counts */
    bool by_key; /* it ended of what it read: out of time, or worse */
};

/* Returns an errno. */
static int start(int child_end, pid_t *pidp)
{
    char *argv[] = {(char *)"lockstep", (char *)PGP_VERB, NULL}, *env[] = {NULL};
    posix_spawn_file_actions_t fa;

    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_adddup2(&fa, child_end, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&fa, child_end, STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&fa, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addclosefrom_np(&fa, STDERR_FILENO + 1);
    return spawn_self(argv, env, &fa, pidp);
}

static int exchange(struct pgp_call *p, int fd)
{
    static const struct timeval limit = {.tv_sec = PGP_LIMIT_S};
    int64_t end_ns = deadline_ns();

    return setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) != 0 ||
                   write_all(fd, p->request.data, p->request.len) != 0 ||
                   shutdown(fd, SHUT_WR) != 0 ||
                   read_all(fd, ANSWER_MAX_BYTES, end_ns, &p->answer) != 0
               ? -1
               : 0;
}

static bool ended_of_it(pid_t pid)
{
    struct rusage used = {0};
    int status = 0;

    while (wait4(pid, &status, 0, &used) < 0)
        if (errno != EINTR)
            return false;
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec >= PGP_CPU_S - 1 ||
           (WIFSIGNALED(status) && (WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGABRT ||
                                    WTERMSIG(status) == SIGBUS));
}

/* Helper thread. */
static void pgp_run(void *arg)
{
    struct pgp_call *p = arg;
    pid_t pid = 0;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        p->sys = errno;
        return;
    }
    p->sys = start(pair[1], &pid);
    close(pair[1]);
    if (p->sys == 0) {
        if (exchange(p, pair[0]) != 0)
            p->sys = errno;
        kill(pid, SIGKILL); /* what it has to say is here, or comes too late */
        p->by_key = ended_of_it(pid);
    }
    close(pair[0]);
}

/* ERR_INVAL: what it says. The byte that says that it is whole is taken off. */
static int check_answer(struct pgp_call *p, struct err *err)
{
    const char *text = (const char *)p->answer.data;

    if (p->sys != 0 || p->answer.len < 2 || text[p->answer.len - 1] != '.') {
        if (p->by_key)
            return err_set(err, ERR_INVAL, 0,
                           "error parsing given PGP key: it cannot be read within %d s", PGP_CPU_S);
        if (p->sys == ETIMEDOUT || p->sys == EAGAIN)
            return err_set(err, ERR_TIMEOUT, 0, "PGP encryption: no answer within %d s",
                           PGP_LIMIT_S);
        return err_set(err, ERR_IO, p->sys, "PGP encryption: its process ended");
    }
    p->answer.len--;
    if (text[0] == '-')
        return err_set(err, ERR_INVAL, 0, "%.*s", (int)p->answer.len - 1, text + 1);
    return text[0] == '+' ? 0 : err_set(err, ERR_PROTO, 0, "PGP encryption: no answer");
}

/* The fingerprints of n keys, and in *messagep where the message begins. */
static int take_answer(const struct pgp_call *p, size_t n, json_t *fingerprints, size_t *messagep,
                       struct err *err)
{
    size_t at = 1;

    for (size_t i = 0; i < n; i++) {
        const char *text = (const char *)p->answer.data + at;
        size_t len = at < p->answer.len ? strnlen(text, p->answer.len - at) : 0;

        if (len == 0 || len >= PGP_FINGERPRINT_BYTES || at + len >= p->answer.len)
            return err_set(err, ERR_PROTO, 0, "PGP encryption: an answer that is not readable");
        if (fingerprints != NULL && json_array_append_new(fingerprints, json_string(text)) != 0)
            return err_set(err, ERR_NOMEM, 0, "PGP key");
        at += len + 1;
    }
    *messagep = at;
    return 0;
}

static int make_request(const void *plain, size_t len, const char *const *keys, size_t n,
                        struct buf *out, struct err *err)
{
    buf_add(out, plain, len);
    buf_addc(out, '\0');
    for (size_t i = 0; i < n; i++) {
        if (strlen(keys[i]) > PGP_KEY_MAX_CHARS)
            return err_set(err, ERR_INVAL, 0,
                           "error decoding given PGP key: longer than %zu KiB: leave the "
                           "signatures of others out (gpg --export-options export-minimal)",
                           PGP_KEY_MAX_CHARS >> 10);
        buf_add(out, keys[i], strlen(keys[i]) + 1);
    }
    return buf_check(out, err);
}

static int call(const void *plain, size_t len, const char *const *keys, size_t n,
                json_t *fingerprints, struct buf *out, struct err *err)
{
    struct pgp_call p = {.request.secret = true};
    size_t at = 0;
    int rc = make_request(plain, len, keys, n, &p.request, err);

    if (rc == 0) {
        run_blocking(pgp_run, &p);
        rc = check_answer(&p, err);
    }
    if (rc == 0)
        rc = take_answer(&p, n, fingerprints, &at, err);
    if (rc == 0 && out != NULL) {
        buf_add(out, p.answer.data + at, p.answer.len - at);
        rc = buf_check(out, err);
    }
    buf_free(&p.request);
    buf_free(&p.answer);
    return rc;
}

int pgp_encrypt(const char *key_base64, const void *plain, size_t len, struct buf *out,
                struct err *err)
{
    return call(plain, len, &key_base64, 1, NULL, out, err);
}

int pgp_try(const char *const *keys, size_t n, json_t *fingerprints, struct err *err)
{
    static atomic_flag busy = ATOMIC_FLAG_INIT;
    int rc;

    if (atomic_flag_test_and_set(&busy))
        return err_set(err, ERR_BUSY, 0, "other PGP keys are being tried: ask again");
    rc = call("x", 1, keys, n, fingerprints, NULL, err);
    atomic_flag_clear(&busy);
    return rc;
}
