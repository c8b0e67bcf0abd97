/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmd_cert.c - lockstep cert: a CA and server certificates for a first set-up.
 *
 * Never overwrites a key. A private key is 0600 from the moment that it exists.
 */
#include "cli.h"
#include "tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int write_new(const char *dir, const char *name, const struct buf *text, mode_t mode,
                     struct err *err)
{
    char path[4096];
    int fd;

    if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, name) >= sizeof(path))
        return err_set(err, ERR_INVAL, 0, "%s: path is too long", dir);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0)
        return err_set(err, ERR_IO, errno, "create %s", path);
    if (write(fd, text->data, text->len) != (ssize_t)text->len || fsync(fd) != 0) {
        err_set(err, ERR_IO, errno, "write %s", path);
        close(fd);
        unlink(path);
        return -1;
    }
    close(fd);
    printf("wrote %s\n", path);
    return 0;
}

static int make_ca(const char *dir, const char *name, int days, struct err *err)
{
    struct cert_request rq = {.common_name = name, .days = days, .ca = true};
    struct buf key = {.secret = true}, cert = {0};
    int rc = -1;

    if (cert_key_new(&key, err) == 0 &&
        cert_issue(&rq, buf_str(&key), NULL, NULL, NULL, &cert, err) == 0 &&
        write_new(dir, "ca-key.pem", &key, 0600, err) == 0 &&
        write_new(dir, "ca.pem", &cert, 0644, err) == 0)
        rc = 0;
    buf_free(&key);
    buf_free(&cert);
    return rc;
}

static int make_server(const char *dir, const char *name, const struct flag_list *hosts, int days,
                       struct err *err)
{
    const char *dns[64], *ips[64];
    struct cert_request rq = {.common_name = name, .dns_names = dns, .ips = ips, .days = days};
    struct buf ca_key = {.secret = true}, ca = {0}, key = {.secret = true}, cert = {0};
    unsigned char probe[sizeof(struct in6_addr)];
    char path[4096], file[300];
    int rc = -1;

    for (size_t i = 0; i < hosts->n; i++) {
        if (hosts->values[i][0] == '\0') {
            err_set(err, ERR_INVAL, 0, "-host is empty");
            goto out;
        }
        if (inet_pton(AF_INET, hosts->values[i], probe) == 1 ||
            inet_pton(AF_INET6, hosts->values[i], probe) == 1)
            ips[rq.n_ips++] = hosts->values[i];
        else
            dns[rq.n_dns++] = hosts->values[i];
    }
    snprintf(path, sizeof(path), "%s/ca.pem", dir);
    if (read_file(path, &ca, err) != 0) {
        err_wrap(err, "no CA in %s (make one first: lockstep cert ca -dir=%s)", dir, dir);
        goto out;
    }
    snprintf(path, sizeof(path), "%s/ca-key.pem", dir);
    if (read_file(path, &ca_key, err) != 0)
        goto out;
    if (cert_key_new(&key, err) != 0 ||
        cert_issue(&rq, buf_str(&key), NULL, buf_str(&ca), buf_str(&ca_key), &cert, err) != 0)
        goto out;
    snprintf(file, sizeof(file), "%s-key.pem", name);
    if (write_new(dir, file, &key, 0600, err) != 0)
        goto out;
    snprintf(file, sizeof(file), "%s.pem", name);
    rc = write_new(dir, file, &cert, 0644, err);
out:
    buf_free(&ca_key);
    buf_free(&ca);
    buf_free(&key);
    buf_free(&cert);
    return rc;
}

/* One of 0 days has expired when it is made, and is found out by those who connect. */
static bool days_wrong(int64_t days)
{
    if (days >= 1 && days <= 36500)
        return false;
    fprintf(stderr, "invalid value for flag -days: give 1 to 36500\n");
    return true;
}

static int cert_ca(int argc, char **argv)
{
    const char *dir = ".", *name = "Lockstep CA";
    int64_t days = 3650;
    struct flag flags[] = {
        {"dir", FLAG_STR, &dir, "Where to write ca.pem and ca-key.pem (made when missing)."},
        {"name", FLAG_STR, &name, "Common name."},
        {"days", FLAG_INT, &days, "Validity (3650)."}};
    struct err err = {0};
    int i = flags_parse("cert ca [options]", flags, 3, NULL, argc, argv);

    if (i < 0)
        return i == -2 ? 0 : EXIT_LOCAL;
    if (days_wrong(days))
        return EXIT_LOCAL;
    if ((mkdir(dir, 0700) != 0 && errno != EEXIST) || make_ca(dir, name, (int)days, &err) != 0) {
        fprintf(stderr, "Error making CA: %s\n", *err.msg ? err.msg : strerror(errno));
        return EXIT_LOCAL;
    }
    return 0;
}

static int cert_server(int argc, char **argv)
{
    const char *dir = ".", *name = "server";
    int64_t days = 825;
    struct flag_list hosts = {0};
    struct flag flags[] = {
        {"dir", FLAG_STR, &dir, "Where the CA is and NAME.pem, NAME-key.pem go."},
        {"name", FLAG_STR, &name, "File and common name (server)."},
        {"host", FLAG_LIST, &hosts,
         "A DNS name or address that clients use; may be repeated (localhost, 127.0.0.1, ::1)."},
        {"days", FLAG_INT, &days, "Validity (825)."}};
    struct err err = {0};
    int i = flags_parse("cert server [options]", flags, 4, NULL, argc, argv);

    if (i < 0)
        return i == -2 ? 0 : EXIT_LOCAL;
    if (days_wrong(days))
        return EXIT_LOCAL;
    if (hosts.n == 0)
        hosts = (struct flag_list){{"localhost", "127.0.0.1", "::1"}, 3};
    if (make_server(dir, name, &hosts, (int)days, &err) != 0) {
        fprintf(stderr, "Error making server certificate: %s\n", err.msg);
        return EXIT_LOCAL;
    }
    return 0;
}

int cmd_cert(int argc, char **argv)
{
    static const struct verb verbs[] = {
        {"ca", cert_ca, "Make a CA: ca.pem and ca-key.pem"},
        {"server", cert_server, "Make a server certificate signed by that CA"},
    };

    return verb_run("cert", verbs, 2, argc, argv);
}
