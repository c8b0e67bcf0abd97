/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * pgp_process.c - a process of its own for what reads OpenPGP keys: the server's side, and its own.
 *
 * It is this program again, with one end of a socket pair as stdin and stdout, and nothing else of
 * ours open. Request: the key, NUL, the text to encrypt, end of file. Answer: '+', the fingerprint,
 * NUL, the message; or '-' and why not, as the caller may be told.
 */
#include "pgp.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "barrier.h"
#include "cluster_private.h"
#include "core_private.h"
#include "process.h"

#define PGP_LATCH "core/pgp"
#define PGP_LIMIT_S 10
#define REQUEST_MAX_BYTES (PGP_KEY_MAX_CHARS + 1 + PGP_PLAIN_MAX_BYTES)
#define ANSWER_MAX_BYTES ((size_t)64 << 10)

/* To the end of file. -1: errno; EMSGSIZE: more than max. */
static int read_all(int fd, size_t max, struct buf *out)
{
    out->secret = true;
    for (;;) {
        uint8_t *at = buf_reserve(out, 4096);
        ssize_t n = at != NULL ? read(fd, at, 4096) : -1;

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

/* ---- the process ---- */

int pgp_main(void)
{
    struct buf in = {0}, message = {0}, out = {0};
    char fingerprint[PGP_FINGERPRINT_BYTES];
    struct err err = {0};
    const char *plain;
    int rc = 1;

    (void)!memory_protect(true, &err); /* locked as far as it may be */
    err_clear(&err);
    if (read_all(STDIN_FILENO, REQUEST_MAX_BYTES, &in) != 0 || in.len == 0 ||
        (plain = memchr(in.data, '\0', in.len)) == NULL)
        goto out;
    plain++;
    if (pgp_encrypt_here((const char *)in.data, plain,
                         in.len - (size_t)(plain - (const char *)in.data), &message, fingerprint,
                         &err) == 0) {
        buf_addc(&out, '+');
        buf_add(&out, fingerprint, strlen(fingerprint) + 1);
        buf_add(&out, message.data, message.len);
    } else if (err.code == ERR_INVAL) {
        buf_printf(&out, "-%s", err.msg);
    } else {
        goto out;
    }
    rc = out.failed || write_all(STDOUT_FILENO, out.data, out.len) != 0;
out:
    buf_free(&in);
    buf_free(&message);
    buf_free(&out);
    return rc;
}

/* ---- the server ---- */

struct pgp_call {
    const char *key;
    const void *plain;
    size_t len;
    struct buf answer;
    int sys; /* errno of what failed here; 0: the answer counts */
};

/* Returns an errno. */
static int start(int child_end, pid_t *pidp)
{
    char *argv[] = {(char *)"lockstep", (char *)PGP_VERB, NULL};
    posix_spawn_file_actions_t fa;

    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_adddup2(&fa, child_end, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&fa, child_end, STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&fa, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addclosefrom_np(&fa, STDERR_FILENO + 1);
    return spawn_self(argv, &fa, pidp);
}

static int exchange(const struct pgp_call *p, int fd, struct buf *answer)
{
    static const struct timeval limit = {.tv_sec = PGP_LIMIT_S};

    return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) != 0 ||
                   setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) != 0 ||
                   write_all(fd, (const uint8_t *)p->key, strlen(p->key) + 1) != 0 ||
                   write_all(fd, p->plain, p->len) != 0 || shutdown(fd, SHUT_WR) != 0 ||
                   read_all(fd, ANSWER_MAX_BYTES, answer) != 0
               ? -1
               : 0;
}

/* Helper thread. */
static void pgp_run(void *arg)
{
    struct pgp_call *p = arg;
    pid_t pid = 0;
    int pair[2], status;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        p->sys = errno;
        return;
    }
    p->sys = start(pair[1], &pid);
    close(pair[1]);
    if (p->sys != 0) {
        close(pair[0]);
        return;
    }
    if (exchange(p, pair[0], &p->answer) != 0) {
        p->sys = errno == EAGAIN || errno == EWOULDBLOCK ? ETIMEDOUT : errno;
        kill(pid, SIGKILL);
    }
    close(pair[0]);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (p->sys == 0 && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
        p->sys = EIO;
}

static int take_answer(const struct pgp_call *p, struct buf *out,
                       char fingerprint[PGP_FINGERPRINT_BYTES], struct err *err)
{
    const char *text = (const char *)p->answer.data;
    size_t n;

    if (p->sys != 0)
        return err_set(err, p->sys == ETIMEDOUT ? ERR_TIMEOUT : ERR_IO, p->sys, "PGP encryption");
    if (p->answer.len > 1 && text[0] == '-')
        return err_set(err, ERR_INVAL, 0, "%.*s", (int)p->answer.len - 1, text + 1);
    n = p->answer.len > 1 && text[0] == '+' ? strnlen(text + 1, p->answer.len - 1) : 0;
    if (n == 0 || n >= PGP_FINGERPRINT_BYTES || n + 2 >= p->answer.len)
        return err_set(err, ERR_PROTO, 0, "PGP encryption: its process answered nothing readable");
    memcpy(fingerprint, text + 1, n + 1);
    if (out == NULL)
        return 0;
    buf_add(out, text + n + 2, p->answer.len - n - 2);
    return buf_check(out, err);
}

int pgp_encrypt(struct core *c, const char *key_base64, const void *plain, size_t len,
                struct buf *out, char fingerprint[PGP_FINGERPRINT_BYTES], struct err *err)
{
    struct pgp_call p = {.key = key_base64, .plain = plain, .len = len};
    struct latch_ref latch;
    int rc;

    if (strlen(key_base64) > PGP_KEY_MAX_CHARS)
        return err_set(err, ERR_INVAL, 0,
                       "error decoding given PGP key: longer than %zu KiB: leave the signatures of "
                       "others out (gpg --export-options export-minimal)",
                       PGP_KEY_MAX_CHARS >> 10);
    if (latch_take(c, PGP_LATCH, &latch, err) != 0)
        return -1;
    run_blocking(pgp_run, &p);
    latch_release(c, &latch);
    rc = take_answer(&p, out, fingerprint, err);
    buf_free(&p.answer);
    return rc;
}
