/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * drill_process.c - the process that serves a drill's fork: started, watched, ended.
 *
 * It is this program again, with a configuration of its own, and nothing of ours open but its end
 * of a socket pair and its log. It gets the root key through that pair: never by arguments,
 * environment or disk. It reports there, and stops when our end closes.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core_private.h"
#include "drill_private.h"
#include "process.h"

#define CHILD_FD 3
#define LINE_MAX_BYTES 4096

static json_t *child_config(const struct drill *d)
{
    const struct config *cfg = d->core->config;
    const struct config_listener *l = &cfg->listeners[0];
    json_t *listener = json_pack("{s:s, s:s}", "address", d->out.address, "tls_disable",
                                 l->tls_disable ? "true" : "false");
    char data[1100], url[300];

    if (!l->tls_disable) {
        json_object_set_new(listener, "tls_cert_file", json_string(l->tls_cert_file));
        json_object_set_new(listener, "tls_key_file", json_string(l->tls_key_file));
    }
    snprintf(data, sizeof(data), "%s/data", d->out.dir);
    snprintf(url, sizeof(url), "%s://%s", l->tls_disable ? "http" : "https", d->out.address);
    return json_pack("{s:{s:{s:s}}, s:{s:o}, s:s, s:s, s:s, s:b}", "storage", "wiredtiger", "path",
                     data, "listener", "tcp", listener, "api_addr", url, "cluster_addr", url,
                     "cluster_name", "drill", "disable_mlock", cfg->disable_mlock);
}

static int write_config(const struct drill *d, char *path, size_t size, struct err *err)
{
    json_t *v = child_config(d);
    int rc = -1;

    snprintf(path, size, "%s/server.json", d->out.dir);
    if (v == NULL)
        err_set(err, ERR_NOMEM, 0, "drill");
    else if (json_dump_file(v, path, JSON_INDENT(1)) != 0)
        err_set(err, ERR_IO, errno, "write %s", path);
    else
        rc = 0;
    json_decref(v);
    return rc;
}

/* Nothing of ours open but the pair's end and its log. */
static int spawn(struct drill *d, const char *config, int child_end, struct err *err)
{
    char flag[1200], log[1100], fd[32] = "";
    char *argv[] = {(char *)"lockstep", (char *)"server", flag, fd, NULL};
    posix_spawn_file_actions_t fa;
    int sys;

    snprintf(flag, sizeof(flag), "-config=%s", config);
    snprintf(fd, sizeof(fd), "-drill-fd=%d", CHILD_FD);
    snprintf(log, sizeof(log), "%s/server.log", d->out.dir);
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&fa, 1, log, O_CREAT | O_WRONLY | O_APPEND, 0600);
    posix_spawn_file_actions_adddup2(&fa, 1, 2);
    posix_spawn_file_actions_adddup2(&fa, child_end, CHILD_FD);
    posix_spawn_file_actions_addclosefrom_np(&fa, CHILD_FD + 1);
    sys = spawn_self(argv, environ, &fa, &d->pid);
    if (sys == 0)
        return 0;
    d->pid = 0;
    return err_set(err, ERR_IO, sys, "start the drill's server");
}

int drill_process_start(struct drill *d, struct err *err)
{
    char config[1100];
    int pair[2], rc;

    if (write_config(d, config, sizeof(config), err) != 0)
        return -1;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return err_set(err, ERR_IO, errno, "drill");
    d->fd = pair[0];
    rc = spawn(d, config, pair[1], err);
    close(pair[1]);
    if (rc == 0 && send(d->fd, d->root, BARRIER_KEY_BYTES, MSG_NOSIGNAL) != BARRIER_KEY_BYTES)
        rc = err_set(err, ERR_IO, errno, "hand over to the drill's server");
    return rc;
}

/* Its one line; 0: told to stop, or its time is over before it came. */
int drill_process_report(struct drill *d, int64_t until_ns, struct err *err)
{
    struct pollfd p[2] = {{.fd = d->fd, .events = POLLIN}, {.fd = d->stop_fd, .events = POLLIN}};
    char line[LINE_MAX_BYTES];
    size_t len = 0;

    while (len == 0 || line[len - 1] != '\n') {
        int64_t left = until_ns - env_mono_ns(d->core->env);
        ssize_t n;

        if (left <= 0 || poll(p, 2, (int)(left / 1000000 + 1)) < 0 || p[1].revents != 0)
            return 0;
        if (p[0].revents == 0)
            continue;
        n = len < sizeof(line) ? read(d->fd, line + len, sizeof(line) - len) : 0;
        if (n <= 0)
            return err_set(err, ERR_CLOSED, 0, "the drill's server ended");
        len += (size_t)n;
    }
    pthread_mutex_lock(&d->mutex);
    d->out.child = json_loadb(line, len, 0, NULL);
    pthread_mutex_unlock(&d->mutex);
    if (d->out.child == NULL)
        return err_set(err, ERR_PROTO, 0, "the drill's server reported nothing readable");
    if (json_object_get(d->out.child, "error") != NULL)
        return err_set(err, ERR_IO, 0, "the drill's server: %s",
                       json_string_value(json_object_get(d->out.child, "error")));
    return 1;
}

/* Until its time is over, it is told to stop, or it ends by itself. */
int drill_process_watch(struct drill *d, int64_t until_ns, struct err *err)
{
    struct pollfd p[2] = {{.fd = d->fd, .events = POLLIN}, {.fd = d->stop_fd, .events = POLLIN}};
    int64_t left;

    while ((left = until_ns - env_mono_ns(d->core->env)) > 0) {
        int64_t ms = left / 1000000 + 1;

        if (poll(p, 2, ms < 3600000 ? (int)ms : 3600000) < 0 && errno != EINTR)
            return err_set(err, ERR_IO, errno, "drill");
        if (p[1].revents != 0)
            return 0;
        if (p[0].revents != 0)
            return err_set(err, ERR_CLOSED, 0, "the drill's server ended before its time");
    }
    return 0;
}

/* Its end of the pair goes with it: that is awaited, then the process is reaped. */
void drill_process_end(struct drill *d)
{
    struct pollfd p = {.fd = d->fd, .events = 0};

    if (d->pid > 0) {
        kill(d->pid, SIGTERM);
        if (poll(&p, 1, DRILL_STOP_MS) <= 0)
            kill(d->pid, SIGKILL);
        while (waitpid(d->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    d->pid = 0;
    if (d->fd >= 0)
        close(d->fd);
    d->fd = -1;
}
