/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * config_keys.c - every key of a configuration: ours, and those that Vault's users have.
 *
 * A key of Vault's that is not listed here as ours is named with what to do, so that nobody
 * believes a setting that does nothing. Where a value asks for what Lockstep does anyway
 * (tls_min_version = "tls12"), it is taken.
 */
#include "config_private.h"

#include <stddef.h>

const struct config_key config_top_keys[] = {
    {"api_addr", CONFIG_TEXT, offsetof(struct config, api_addr)},
    {"cluster_addr", CONFIG_TEXT, offsetof(struct config, cluster_addr)},
    {"cluster_name", CONFIG_TEXT, offsetof(struct config, cluster_name)},
    {"pid_file", CONFIG_TEXT, offsetof(struct config, pid_file)},
    {"log_file", CONFIG_TEXT, offsetof(struct config, log_file)},
    {"log_level", CONFIG_LEVEL, offsetof(struct config, log_level)},
    {"ui", CONFIG_BOOL, offsetof(struct config, ui)},
    {"disable_mlock", CONFIG_BOOL, offsetof(struct config, disable_mlock)},
    {"default_lease_ttl", CONFIG_SECONDS, offsetof(struct config, default_lease_ttl_s)},
    {"max_lease_ttl", CONFIG_SECONDS, offsetof(struct config, max_lease_ttl_s)},
    {"reactors", CONFIG_COUNT, offsetof(struct config, reactors)},
    {0},
};

const struct config_key config_listener_keys[] = {
    {"address", CONFIG_TEXT, offsetof(struct config_listener, address)},
    {"cluster_address", CONFIG_TEXT, offsetof(struct config_listener, cluster_address)},
    {"tls_disable", CONFIG_BOOL, offsetof(struct config_listener, tls_disable)},
    {"tls_cert_file", CONFIG_TEXT, offsetof(struct config_listener, tls_cert_file)},
    {"tls_key_file", CONFIG_TEXT, offsetof(struct config_listener, tls_key_file)},
    {0},
};

const struct config_key config_listener_telemetry_keys[] = {
    {"unauthenticated_metrics_access", CONFIG_BOOL,
     offsetof(struct config_listener, unauthenticated_metrics_access)},
    {0},
};

const struct config_key config_storage_keys[] = {
    {"path", CONFIG_TEXT, offsetof(struct config, storage_path)},
    {"cache_size", CONFIG_BYTES, offsetof(struct config, cache_bytes)},
    {"disk_reserve", CONFIG_BYTES, offsetof(struct config, reserve_bytes)},
    {"log_file_size", CONFIG_BYTES, offsetof(struct config, wal_file_bytes)},
    {"log_retain", CONFIG_BYTES, offsetof(struct config, retain_bytes)},
    {"log_retain_age", CONFIG_SECONDS, offsetof(struct config, retain_age_s)},
    {0},
};

const struct config_key config_replication_keys[] = {
    {"default_mode", CONFIG_TEXT, offsetof(struct config, default_mode)},
    {"default_wait_limit", CONFIG_MILLIS, offsetof(struct config, default_wait_ms)},
    {"default_on_limit", CONFIG_TEXT, offsetof(struct config, default_on_limit)},
    {"best_effort_wal_wait_duration", CONFIG_MILLIS, offsetof(struct config, best_effort_wait_ms)},
    {"force_async", CONFIG_TEXT, offsetof(struct config, force_async)},
    {"scrub_interval", CONFIG_MILLIS, offsetof(struct config, scrub_interval_ms)},
    {"fence_wait", CONFIG_MILLIS, offsetof(struct config, fence_wait_ms)},
    {"sealed_wait", CONFIG_MILLIS, offsetof(struct config, sealed_wait_ms)},
    {"lag_warn", CONFIG_MILLIS, offsetof(struct config, lag_warn_ms)},
    {"keep_wiped", CONFIG_MILLIS, offsetof(struct config, keep_wiped_ms)},
    {"max_loss", CONFIG_MILLIS, offsetof(struct config, max_loss_ms)},
    {"lag_guard", CONFIG_MILLIS, offsetof(struct config, lag_guard_ms)},
    {"lag_guard_bytes", CONFIG_BYTES, offsetof(struct config, lag_guard_bytes)},
    {0},
};

const struct config_key config_secondary_keys[] = {
    {"mode", CONFIG_TEXT, offsetof(struct config_secondary, mode)},
    {"wait_limit", CONFIG_MILLIS, offsetof(struct config_secondary, wait_ms)},
    {"on_limit", CONFIG_TEXT, offsetof(struct config_secondary, on_limit)},
    {0},
};

#define REMOVE "remove the key"
const struct config_known config_top_known[] = {
    {"log_format", "standard",
     "only \"standard\" is supported yet: write log_format = \"standard\" or remove the key"},
    {"log_rotate_bytes", NULL,
     "not supported: remove the key and let logrotate turn log_file over"},
    {"log_rotate_duration", NULL,
     "not supported: remove the key and let logrotate turn log_file over"},
    {"log_rotate_max_files", NULL,
     "not supported: remove the key and let logrotate turn log_file over"},
    {"log_requests_level", "off", "not supported: " REMOVE},
    {"cache_size", NULL,
     "not supported here, where Vault counts entries: write cache_size = \"256MiB\" inside storage "
     "\"wiredtiger\""},
    {"disable_cache", "false", "not supported: " REMOVE},
    {"disable_clustering", "false",
     "not supported: replication needs the cluster address: " REMOVE},
    {"disable_sealwrap", "true",
     "there is no seal wrapping: write disable_sealwrap = true or remove the key"},
    {"disable_performance_standby", "true", "there are no performance standbys: " REMOVE},
    {"disable_printable_check", "false", "not supported: " REMOVE},
    {"disable_indexing", "false", "not supported: " REMOVE},
    {"raw_storage_endpoint", "false", "not supported: " REMOVE},
    {"introspection_endpoint", "false", "not supported: " REMOVE},
    {"enable_post_unseal_trace", "false", "not supported: " REMOVE},
    {"post_unseal_trace_directory", NULL, "not supported: " REMOVE},
    {"enable_response_header_hostname", "false", "not supported: " REMOVE},
    {"enable_response_header_raft_node_id", "false", "not supported: " REMOVE},
    {"enable_unauthenticated_access", NULL,
     "not needed: generate-root is open here, and a stranger can't block it: " REMOVE},
    {"allow_audit_log_prefixing", "false", "not supported: " REMOVE},
    {"unsafe_allow_api_audit_creation", "false", "not supported yet: " REMOVE},
    {"unsafe_cross_namespace_identity", "false", "not supported: " REMOVE},
    {"allow_unauthenticated_workflow_access", "false", "not supported: " REMOVE},
    {"imprecise_lease_role_tracking", "false", "not supported: " REMOVE},
    {"detect_deadlocks", "", "not supported: " REMOVE},
    {"experiments", NULL, "not supported: " REMOVE},
    {"feature_flags", NULL, "not supported: " REMOVE},
    {"administrative_namespace_path", NULL, "namespaces are not supported: " REMOVE},
    {"license_path", NULL, "no license is needed: " REMOVE},
    {"plugin_directory", NULL, "plugins are not supported: " REMOVE},
    {"plugin_tmpdir", NULL, "plugins are not supported: " REMOVE},
    {"plugin_file_uid", NULL, "plugins are not supported: " REMOVE},
    {"plugin_file_permissions", NULL, "plugins are not supported: " REMOVE},
    {"plugin", NULL, "plugins are not supported: remove the block"},
    {"telemetry", NULL, "not supported yet: remove the block"},
    {"ha_storage", NULL, "not supported: a second copy is kept by replication: remove the block"},
    {"ha_backend", NULL, "not supported: a second copy is kept by replication: remove the block"},
    {"service_registration", NULL, "not supported yet: remove the block"},
    {"hsm", NULL, "not supported: remove the block; the server is unsealed with key shares"},
    {"kms_library", NULL,
     "not supported: remove the block; the server is unsealed with key shares"},
    {"entropy", NULL, "not supported: random numbers come from the kernel: remove the block"},
    {"sentinel", NULL, "not supported: remove the block"},
    {"reporting", NULL, "nothing is reported to anybody: remove the block"},
    {"user_lockout", NULL, "not supported yet: remove the block"},
    {"request_limiter", NULL, "not supported yet: remove the block"},
    {"initialize", NULL, "not supported: use `lockstep operator init`: remove the block"},
    {"audit", NULL, "not supported yet: remove the block"},
    {"observations", NULL, "not supported: remove the block"},
    {0},
};

#define PROXY "not supported: let the proxy pass TCP through, and remove the key"
const struct config_known config_listener_known[] = {
    {"tls_min_version", "tls12", "TLS 1.2 and 1.3 are spoken: write \"tls12\" or remove the key"},
    {"tls_max_version", "tls13", "TLS 1.2 and 1.3 are spoken: write \"tls13\" or remove the key"},
    {"tls_cipher_suites", NULL,
     "not supported: the system's OpenSSL configuration decides: " REMOVE},
    {"tls_prefer_server_cipher_suites", NULL, "not supported: " REMOVE},
    {"tls_client_ca_file", NULL, "client certificates are not supported yet: " REMOVE},
    {"tls_require_and_verify_client_cert", "false",
     "client certificates are not supported yet: " REMOVE},
    {"tls_disable_client_certs", "true",
     "client certificates are not supported yet: write true or remove the key"},
    {"purpose", NULL, "not supported: " REMOVE},
    {"role", "default", "not supported: " REMOVE},
    {"max_request_size", "33554432", "the limit is 32 MiB: " REMOVE},
    {"max_request_duration", NULL, "not supported yet: " REMOVE},
    {"max_json_depth", NULL, "the limit is fixed: " REMOVE},
    {"max_json_string_value_length", NULL, "the limit is fixed: " REMOVE},
    {"max_json_object_entry_count", NULL, "the limit is fixed: " REMOVE},
    {"max_json_array_element_count", NULL, "the limit is fixed: " REMOVE},
    {"max_request_json_memory", NULL, "the limit is fixed: " REMOVE},
    {"max_request_json_strings", NULL, "the limit is fixed: " REMOVE},
    {"disable_request_limiter", NULL, "there is no request limiter: " REMOVE},
    {"http_read_timeout", NULL, "the limit is fixed (90s): " REMOVE},
    {"http_read_header_timeout", NULL, "the limit is fixed (90s): " REMOVE},
    {"http_write_timeout", NULL, "not supported: " REMOVE},
    {"http_idle_timeout", "5m", "the limit is fixed (5m): " REMOVE},
    {"require_request_header", "false", "not supported yet: " REMOVE},
    {"proxy_protocol_behavior", NULL, PROXY},
    {"proxy_protocol_authorized_addrs", NULL, PROXY},
    {"x_forwarded_for_authorized_addrs", NULL, PROXY},
    {"x_forwarded_for_hop_skips", NULL, PROXY},
    {"x_forwarded_for_reject_not_authorized", NULL, PROXY},
    {"x_forwarded_for_reject_not_present", NULL, PROXY},
    {"x_forwarded_for_client_cert_header", NULL, PROXY},
    {"x_forwarded_for_client_cert_header_decoders", NULL, PROXY},
    {"profiling", NULL, "not supported: remove the block"},
    {"inflight_requests_logging", NULL, "not supported: remove the block"},
    {"custom_response_headers", NULL, "not supported yet: remove the block"},
    {"cors_enabled", "false", "not supported yet: " REMOVE},
    {"cors_allowed_origins", NULL, "not supported yet: " REMOVE},
    {"cors_allowed_headers", NULL, "not supported yet: " REMOVE},
    {"disable_replication_status_endpoints", "false", "not supported yet: " REMOVE},
    {"disable_unauthed_rekey_endpoints", "false", "not supported yet: " REMOVE},
    {"disable_unauthed_generate_root_endpoints", "false", "not supported yet: " REMOVE},
    {"redact_addresses", "false", "not supported yet: " REMOVE},
    {"redact_cluster_name", "false", "not supported yet: " REMOVE},
    {"redact_version", "false", "not supported yet: " REMOVE},
    {"chroot_namespace", NULL, "namespaces are not supported: " REMOVE},
    {"agent_api", NULL, "an agent's setting: remove the block"},
    {"proxy_api", NULL, "a proxy's setting: remove the block"},
    {"tls_acme_domains", NULL, "ACME is not supported: write tls_cert_file and tls_key_file"},
    {"tls_acme_email", NULL, "ACME is not supported: write tls_cert_file and tls_key_file"},
    {"tls_acme_ca_directory", NULL, "ACME is not supported: write tls_cert_file and tls_key_file"},
    {"tls_acme_cache_path", NULL, "ACME is not supported: write tls_cert_file and tls_key_file"},
    {0},
};

const struct config_known config_storage_known[] = {
    {"node_id", NULL, "not supported: Raft's key: " REMOVE},
    {"retry_join", NULL,
     "not supported: Raft's key; a second cluster follows by replication: remove the block"},
    {"performance_multiplier", NULL, "not supported: Raft's key: " REMOVE},
    {"address", NULL, "not supported: the data is on this machine's disk, under path: " REMOVE},
    {"token", NULL, "not supported: the data is on this machine's disk, under path: " REMOVE},
    {"redirect_addr", NULL, "write api_addr at the top level instead"},
    {"api_addr", NULL, "write api_addr at the top level instead"},
    {"cluster_addr", NULL, "write cluster_addr at the top level instead"},
    {"disable_clustering", "false", "not supported: " REMOVE},
    {"max_parallel", NULL, "not supported: " REMOVE},
    {0},
};

#define WRITE "write storage \"wiredtiger\" { path = \"/var/lib/lockstep\" } instead"
const struct config_known config_other_storage[] = {
    {"consul", NULL, "comes later; for now " WRITE},
    {"raft", NULL, "is not supported: a second cluster follows by replication; " WRITE},
    {"file", NULL, "is not supported; " WRITE},
    {"inmem", NULL, "is not supported: data would be lost; " WRITE},
    {"postgresql", NULL, "is not supported; " WRITE},
    {"mysql", NULL, "is not supported; " WRITE},
    {"mssql", NULL, "is not supported; " WRITE},
    {"etcd", NULL, "is not supported; " WRITE},
    {"zookeeper", NULL, "is not supported; " WRITE},
    {"cassandra", NULL, "is not supported; " WRITE},
    {"cockroachdb", NULL, "is not supported; " WRITE},
    {"couchdb", NULL, "is not supported; " WRITE},
    {"dynamodb", NULL, "is not supported; " WRITE},
    {"foundationdb", NULL, "is not supported; " WRITE},
    {"aerospike", NULL, "is not supported; " WRITE},
    {"alicloudoss", NULL, "is not supported; " WRITE},
    {"azure", NULL, "is not supported; " WRITE},
    {"gcs", NULL, "is not supported; " WRITE},
    {"s3", NULL, "is not supported; " WRITE},
    {"spanner", NULL, "is not supported; " WRITE},
    {"manta", NULL, "is not supported; " WRITE},
    {"oci", NULL, "is not supported; " WRITE},
    {"swift", NULL, "is not supported; " WRITE},
    {0},
};

#define NO_BUFFER "there is no buffer: the log holds what a secondary lacks: " REMOVE
const struct config_known config_replication_known[] = {
    {"logshipper_buffer_length", NULL, NO_BUFFER},
    {"logshipper_buffer_size", NULL, NO_BUFFER},
    {"resolver_discover_servers", "true", "not supported: " REMOVE},
    {"allow_forwarding_via_header", "false", "requests are not forwarded: " REMOVE},
    {"allow_forwarding_via_token", NULL, "requests are not forwarded: " REMOVE},
    {0},
};
