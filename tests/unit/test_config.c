/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config.h"

#define STORE "storage \"wiredtiger\" { path = \"/d\" }\n"
#define LISTEN "listener \"tcp\" { tls_disable = true }\n"

static struct config c;
static struct err err;

static void setup(void)
{
    config_init(&c);
    memset(&err, 0, sizeof(err));
}

static void teardown(void)
{
    config_free(&c);
}

TestSuite(config, .init = setup, .fini = teardown, .timeout = 20);

static void good(const char *text)
{
    config_free(&c);
    setup();
    cr_assert_eq(config_parse(text, strlen(text), "f.hcl", &c, &err), 0, "%s", err.msg);
    cr_assert_eq(config_complete(&c, &err), 0, "%s", err.msg);
}

static void bad(const char *text, const char *want)
{
    config_free(&c);
    setup();
    cr_assert(config_parse(text, strlen(text), "f.hcl", &c, &err) != 0 ||
                  config_complete(&c, &err) != 0,
              "%s", text);
    cr_assert_eq(strncmp(err.msg, want, strlen(want)), 0, "got: %s\nwant: %s", err.msg, want);
}

Test(config, a_vault_users_file_is_taken_whole)
{
    good("storage \"wiredtiger\" {\n path = \"/var/lib/x\"\n cache_size = \"64MiB\"\n disk_reserve "
         "= 1024\n}\n"
         "listener \"tcp\" {\n address = \"127.0.0.1:9200\"\n tls_disable = \"true\"\n "
         "tls_min_version = \"tls12\"\n"
         " telemetry { unauthenticated_metrics_access = 1 }\n}\n"
         "api_addr = \"http://127.0.0.1:9200\"\ncluster_addr = "
         "\"https://127.0.0.1:9201\"\ncluster_name = \"b\"\n"
         "ui = true\nlog_level = \"debug\"\ndisable_mlock = \"1\"\ndefault_lease_ttl = "
         "\"24h\"\nmax_lease_ttl = 172800\n"
         "log_format = \"standard\"\nraw_storage_endpoint = false\nseal \"shamir\" {}\n");
    cr_assert_str_eq(c.storage_path, "/var/lib/x");
    cr_assert(c.cache_bytes == 64ull << 20 && c.reserve_bytes == 1024);
    cr_assert(c.n_listeners == 1 && c.listeners[0].tls_disable &&
              c.listeners[0].unauthenticated_metrics_access);
    cr_assert_str_eq(c.listeners[0].cluster_address, "127.0.0.1:9201", "the API port + 1");
    cr_assert_str_eq(c.cluster_name, "b");
    cr_assert(c.ui && c.disable_mlock && c.log_level == LOG_LEVEL_DEBUG);
    cr_assert(c.default_lease_ttl_s == 86400 && c.max_lease_ttl_s == 172800);
}

Test(config, json_says_the_same)
{
    good("{\"storage\": {\"wiredtiger\": {\"path\": \"/d\"}}, \"listener\": [{\"tcp\": "
         "{\"address\": \"[::1]:8200\", "
         "\"tls_disable\": 1}}, {\"tcp\": {\"address\": \"127.0.0.1:8300\", \"tls_disable\": "
         "\"true\"}}], \"ui\": true}");
    cr_assert_eq(c.n_listeners, 2);
    cr_assert_str_eq(c.listeners[0].cluster_address, "[::1]:8201");
    cr_assert_str_eq(c.api_addr, "http://[::1]:8200");
    cr_assert_str_eq(c.cluster_addr, "https://[::1]:8201");
}

Test(config, secondaries_have_modes_of_their_own)
{
    good(STORE LISTEN "replication {\n default_wait_limit = \"3s\"\n secondary \"site-b\" { mode = "
                      "\"flush\"\n wait_limit = \"1500ms\"\n on_limit = \"fallback\" }\n secondary "
                      "\"site-c\" { mode = \"async\" }\n}");
    cr_assert_eq(c.n_secondaries, 2);
    cr_assert_str_eq(c.secondaries[0].id, "site-b");
    cr_assert_str_eq(c.secondaries[0].mode, "flush");
    cr_assert_str_eq(c.secondaries[0].on_limit, "fallback");
    cr_assert_eq(c.secondaries[0].wait_ms, 1500);
    cr_assert_str_eq(c.secondaries[1].id, "site-c");
    cr_assert(c.secondaries[1].on_limit == NULL && c.secondaries[1].wait_ms == 0);
    good("{\"storage\": {\"wiredtiger\": {\"path\": \"/d\"}}, \"listener\": {\"tcp\": "
         "{\"tls_disable\": 1}}, \"replication\": {\"secondary\": {\"b\": {\"mode\": \"apply\"}, "
         "\"c\": {\"mode\": \"flush\"}}}}");
    cr_assert(c.n_secondaries == 2 && strcmp(c.secondaries[1].id, "c") == 0);
    good("{\"storage\": {\"wiredtiger\": {\"path\": \"/d\"}}, \"listener\": {\"tcp\": "
         "{\"tls_disable\": 1}}, \"replication\": {\"lag_warn\": \"5s\", \"secondary\": [{\"b\": "
         "{\"mode\": \"apply\"}}, {\"c\": {\"mode\": \"flush\"}}]}}");
    cr_assert(c.n_secondaries == 2 && strcmp(c.secondaries[1].id, "c") == 0);
    bad(STORE LISTEN "\nreplication {\n secondary \"b\" {\n mode = \"sync\" } }",
        "f.hcl:5: mode: unknown \"sync\": write async, flush or apply");
    bad(STORE LISTEN "\nreplication {\n secondary \"b\" { } }", "f.hcl:5: mode: is missing");
    bad(STORE LISTEN "\nreplication {\n secondary { mode = \"flush\" } }",
        "f.hcl:5: secondary: write secondary \"ID\"");
    bad(STORE LISTEN "\nreplication {\n secondary \"a/b\" { mode = \"flush\" } }",
        "f.hcl:5: secondary: write secondary \"ID\"");
    bad(STORE LISTEN "\nreplication {\n secondary \"b\" { mode = \"flush\"\n force = true } }",
        "f.hcl:6: force: unknown key");
    bad(STORE LISTEN
        "\nreplication {\n secondary \"b\" { mode = \"flush\"\n wait_limit = \"2h\" } }",
        "f.hcl:5: wait_limit: must be from 1ms to 1h");
    bad(STORE LISTEN
        "\nreplication {\n secondary \"b\" { mode = \"flush\" }\n secondary \"b\" { mode = "
        "\"apply\" } }",
        "f.hcl:6: secondary: \"b\" stands twice; the first is on line 5");
}

Test(config, what_is_not_written_has_vaults_defaults)
{
    good(STORE LISTEN);
    cr_assert_str_eq(c.listeners[0].address, "127.0.0.1:8200");
    cr_assert_str_eq(c.api_addr, "http://127.0.0.1:8200");
    cr_assert(c.default_lease_ttl_s == 768 * 3600 && c.max_lease_ttl_s == 768 * 3600);
    cr_assert(!c.ui && !c.disable_mlock && c.log_level == LOG_LEVEL_INFO);
}

Test(config, booleans_convert_as_vaults_do)
{
    static const char *const yes[] = {"true", "1", "\"1\"", "\"t\"", "\"TRUE\"", "\"True\""};

    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
        char text[256];
        snprintf(text, sizeof(text), STORE "listener \"tcp\" { tls_disable = %s }", yes[i]);
        good(text);
        cr_assert(c.listeners[0].tls_disable);
    }
    bad(STORE "listener \"tcp\" {\n tls_disable = \"yes\" }",
        "f.hcl:3: tls_disable: must be true or false");
    bad(STORE "ui = [true]", "f.hcl:2: ui: must be true or false, not a list");
}

Test(config, unknown_and_wrong_keys_are_named_with_file_and_line)
{
    bad(STORE LISTEN "\nfoo = 1", "f.hcl:4: foo: unknown key");
    bad("storage \"wiredtiger\" {\n path = \"/d\"\n pth = 1\n}", "f.hcl:3: pth: unknown key");
    bad(STORE "listener \"tcp\" {\n adress = \"x\" }", "f.hcl:3: adress: unknown key");
    bad(STORE "api_addr = true", "f.hcl:2: api_addr: must be a string");
    bad(STORE "api_addr \"x\" {}", "f.hcl:2: api_addr: is a value, not a block");
    bad(STORE "default_lease_ttl = \"soon\"", "f.hcl:2: default_lease_ttl: ");
    bad(STORE "default_lease_ttl = -5", "f.hcl:2: default_lease_ttl: must not be negative");
    bad(STORE "log_level = \"loud\"", "f.hcl:2: log_level: unknown level \"loud\"");
    bad("storage \"wiredtiger\" { path = \"/d\"\n cache_size = 131072 }",
        "f.hcl:2: cache_size: must be from 16MiB to 1TiB");
    bad("storage \"wiredtiger\" { path = \"/d\"\n cache_size = \"9PB\" }",
        "f.hcl:2: cache_size: must be a size");
    bad("storage \"wiredtiger\" {", "f.hcl:1:24: object expected closing RBRACE got: EOF");
    bad(STORE "ui = true\nui = false", "f.hcl:3: ui: stands twice; the first is on line 2");
    bad(STORE STORE, "f.hcl:2: storage: stands twice");
    bad(STORE "backend \"wiredtiger\" { path = \"/e\" }", "f.hcl:2: backend: stands twice");
    bad(STORE "listener \"tcp\" { address = \"a:1\"\n address = \"a:2\" }",
        "f.hcl:3: address: stands twice");
}

Test(config, other_storages_say_what_to_write)
{
    bad("storage \"consul\" { address = \"x\" }",
        "f.hcl:1: storage: \"consul\" comes later; for now write storage \"wiredtiger\"");
    bad("storage \"raft\" { path = \"x\" }", "f.hcl:1: storage: \"raft\" is not supported");
    bad("backend \"file\" { path = \"x\" }",
        "f.hcl:1: backend: \"file\" is not supported; write storage \"wiredtiger\"");
    bad("storage \"wired\" { path = \"x\" }",
        "f.hcl:1: storage: \"wired\" is unknown; write storage \"wiredtiger\"");
    bad("storage = \"/x\"", "f.hcl:1: storage: write storage \"wiredtiger\"");
    bad("storage \"wiredtiger\" { }", "f.hcl:1: path: is missing");
    bad(LISTEN, "storage: is missing: write storage \"wiredtiger\"");
    bad(STORE, "listener: is missing: write listener \"tcp\"");
}

Test(config, vaults_other_keys_say_what_to_do)
{
    bad(STORE "telemetry {\n statsd_address = \"x\" }",
        "f.hcl:2: telemetry: not supported yet: remove the block");
    bad(STORE "seal \"awskms\" { region = \"x\" }",
        "f.hcl:2: seal: not supported: remove the block; the server is unsealed");
    bad(STORE "listener \"unix\" { address = \"/x\" }",
        "f.hcl:2: listener: \"unix\" is not supported");
    bad(STORE "listener \"tcp\" {\n tls_disable = true\n tls_min_version = \"tls10\" }",
        "f.hcl:4: tls_min_version: TLS 1.2");
    bad(STORE "cache_size = 131072", "f.hcl:2: cache_size: not supported here");
    bad(STORE "raw_storage_endpoint = true", "f.hcl:2: raw_storage_endpoint: not supported");
}

Test(config, tls_without_files_says_what_to_write)
{
    bad(STORE "listener \"tcp\" { address = \"127.0.0.1:1\" }",
        "f.hcl:2: tls_cert_file: is missing: write tls_cert_file");
    bad(STORE "listener \"tcp\" { tls_disable = false\n tls_cert_file = \"/etc/hostname\" }",
        "f.hcl:2: tls_key_file: is missing");
    bad(STORE
        "listener \"tcp\" {\n tls_cert_file = \"/no/such.pem\"\n tls_key_file = \"/no/key.pem\" }",
        "f.hcl:3: tls_cert_file: open /no/such.pem: No such file or directory");
}

Test(config, addresses_and_durations_must_make_sense)
{
    bad(STORE "listener \"tcp\" { tls_disable = 1, address = \"a:b\" }",
        "listener: address: \"a:b\" is not HOST:PORT");
    bad(STORE LISTEN "api_addr = \"127.0.0.1:8200\"",
        "api_addr: \"127.0.0.1:8200\" is not https://HOST:PORT");
    bad(STORE LISTEN "api_addr = \"https://x:99999\"", "api_addr: ");
    bad(STORE LISTEN "default_lease_ttl = \"2h\"\nmax_lease_ttl = \"1h\"",
        "default_lease_ttl: must not be larger");
    good(STORE LISTEN "max_lease_ttl = \"1h\"");
    cr_assert_eq(c.default_lease_ttl_s, 3600);
    good(STORE LISTEN "cluster_addr = \"host.example:8201\"");
    good(STORE LISTEN "api_addr = \"https://host.example\"\ncluster_addr = \"https://[::1]:8201\"");
    /* Others dial what is configured, before and after a restart: there is no "any port". */
    bad(STORE LISTEN "cluster_addr = \"https://host.example:0\"",
        "cluster_addr: \"https://host.example:0\" is not https://HOST:PORT, with a port from 1");
    bad(STORE LISTEN "api_addr = \"https://host.example:0\"", "api_addr: ");
    bad(STORE "listener \"tcp\" {\n address = \"127.0.0.1:0\"\n tls_disable = true\n}\n",
        "listener: address: \"127.0.0.1:0\" is not HOST:PORT, with a port from 1");
    /* To listen on all addresses is one thing, to be dialled there another. */
    good(STORE
         "listener \"tcp\" {\n address = \"0.0.0.0:8200\"\n cluster_address = \"[::]:8201\"\n "
         "tls_disable = true\n}\n");
    cr_assert(strstr(c.api_addr, "0.0.0.0") == NULL && strstr(c.cluster_addr, "[::]") == NULL,
              "%s %s", c.api_addr, c.cluster_addr);
    bad(STORE LISTEN "api_addr = \"https://0.0.0.0:8200\"",
        "api_addr: \"https://0.0.0.0:8200\" listens on all addresses, and cannot be dialled: write "
        "this machine's name or address in its place");
    bad(STORE LISTEN "api_addr = \"http://0.0.0.0\"",
        "api_addr: \"http://0.0.0.0\" listens on all");
    bad(STORE LISTEN "api_addr = \"https://:8200\"", "api_addr: ");
    bad(STORE LISTEN "cluster_addr = \"https://[::]:8201\"",
        "cluster_addr: \"https://[::]:8201\" l");
    bad(STORE LISTEN "cluster_addr = \"[0:0::0]:8201\"", "cluster_addr: \"[0:0::0]:8201\" listens");
    bad(STORE "listener \"tcp\" {\n cluster_address = \"127.0.0.1:0\"\n tls_disable = true\n}\n",
        "listener: cluster_address: \"127.0.0.1:0\" is not HOST:PORT, with a port from 1");
}

Test(config, files_and_directories_are_read_in_order_and_the_later_wins)
{
    char dir[] = "/tmp/lockstep-config-XXXXXX", path[128], sub[64];
    const char *paths[2];
    FILE *f;

    cr_assert_not_null(mkdtemp(dir));
    snprintf(sub, sizeof(sub), "%s/d", dir);
    cr_assert_eq(mkdir(sub, 0700), 0);
    paths[0] = sub;
    cr_assert_eq(config_load(paths, 1, &c, &err), -1);
    cr_assert_not_null(strstr(err.msg, sub), "an empty directory is named");
    snprintf(path, sizeof(path), "%s/b.json", sub);
    f = fopen(path, "w");
    fputs("{\"cluster_name\": \"later\"}", f);
    fclose(f);
    snprintf(path, sizeof(path), "%s/a.hcl", sub);
    f = fopen(path, "w");
    fputs(STORE LISTEN "cluster_name = \"first\"\n", f);
    fclose(f);
    snprintf(path, sizeof(path), "%s/notes.txt", sub);
    f = fopen(path, "w");
    fputs("not a configuration", f);
    fclose(f);
    config_free(&c);
    err_clear(&err);
    cr_assert_eq(config_load(paths, 1, &c, &err), 0, "%s", err.msg);
    cr_assert_str_eq(c.cluster_name, "later");
    cr_assert_eq(c.n_listeners, 1);
    config_free(&c);
    paths[1] = "/no/such/file.hcl";
    cr_assert_eq(config_load(paths, 2, &c, &err), -1);
    cr_assert_eq(err.code, ERR_NOTFOUND);
    cr_assert_not_null(strstr(err.msg, "/no/such/file.hcl"));
    snprintf(path, sizeof(path), "rm -r '%s'", dir);
    cr_assert_eq(system(path), 0);
}
