/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * config_replication.c - the block replication { ... } of a configuration, and in it a block for
 * each secondary that has a mode of its own.
 */
#include "config_private.h"

#include <stdlib.h>
#include <string.h>

#include "cluster_private.h"
#include "engine.h"

static int check_word(struct config_reader *r, int line, const char *key, const char *word,
                      const char *a, const char *b, const char *c)
{
    if (word == NULL || strcmp(word, a) == 0 || strcmp(word, b) == 0 || strcmp(word, c) == 0)
        return 0;
    return config_fail(r, line, key, "unknown \"%s\": write %s%s%s or %s", word, a,
                       c != b ? ", " : "", c != b ? b : "", c);
}

void config_secondary_free(struct config_secondary *s)
{
    free(s->id);
    free(s->mode);
    free(s->on_limit);
    memset(s, 0, sizeof(*s));
}

/* A later text replaces what an earlier one had. */
static struct config_secondary *secondary_of(struct config_reader *r, int line, const char *id)
{
    struct config *c = r->c;
    size_t i = 0;
    char *copy;

    while (i < c->n_secondaries && strcmp(c->secondaries[i].id, id) != 0)
        i++;
    if (i == CONFIG_SECONDARIES_MAX) {
        config_fail(r, line, "secondary", "more than %d of them", CONFIG_SECONDARIES_MAX);
        return NULL;
    }
    copy = strdup(id);
    if (copy == NULL) {
        err_set(r->err, ERR_NOMEM, 0, "configuration");
        return NULL;
    }
    config_secondary_free(&c->secondaries[i]);
    c->secondaries[i].id = copy;
    c->n_secondaries += i == c->n_secondaries;
    return &c->secondaries[i];
}

static int read_secondary(struct config_reader *r, int line, const char *id,
                          const struct hcl_value *v)
{
    static const struct config_known none[] = {{0}};
    struct config_secondary *s;

    if (v->kind != HCL_OBJECT || id == NULL || !member_id_good(id))
        return config_fail(r, line, "secondary", "write secondary \"ID\" { mode = \"flush\" }");
    s = secondary_of(r, line, id);
    if (s == NULL)
        return -1;
    for (const struct hcl_item *k = v->items; k != NULL; k = k->next)
        if (config_check_once(r, v, k) != 0 ||
            config_read_key(r, k, config_secondary_keys, none, s) != 0)
            return -1;
    if (s->mode == NULL)
        return config_fail(r, line, "mode", "is missing: write mode = \"flush\"");
    if (check_word(r, line, "mode", s->mode, "async", "flush", "apply") != 0 ||
        check_word(r, line, "on_limit", s->on_limit, "strict", "fallback", "fallback") != 0)
        return -1;
    if (s->wait_ms > REPL_WAIT_MS_MAX)
        return config_fail(r, line, "wait_limit", "must be from 1ms to 1h");
    return 0;
}

/* As JSON has them: an object, with a member for each. */
static int read_object(struct config_reader *r, int line, const struct hcl_value *o)
{
    if (o->kind != HCL_OBJECT || o->items == NULL)
        return read_secondary(r, line, NULL, o);
    for (const struct hcl_item *in = o->items; in != NULL; in = in->next)
        if (config_check_once(r, o, in) != 0 ||
            read_secondary(r, in->line, in->key, in->value) != 0)
            return -1;
    return 0;
}

/* in: what it stands in. */
static int read_secondaries(struct config_reader *r, const struct hcl_value *in,
                            const struct hcl_item *it)
{
    if (it->value->kind == HCL_LIST) {
        for (const struct hcl_value *v = it->value->elems; v != NULL; v = v->next)
            if (read_object(r, it->line, v) != 0)
                return -1;
        return 0;
    }
    if (it->n_labels == 0)
        return read_object(r, it->line, it->value);
    for (const struct hcl_item *o = in->items; o != it; o = o->next)
        if (strcmp(o->key, it->key) == 0 && o->n_labels > 0 &&
            strcmp(o->labels[0], it->labels[0]) == 0)
            return config_fail(r, it->line, it->key,
                               "\"%s\" stands twice; the first is on line %d: keep one",
                               it->labels[0], o->line);
    return read_secondary(r, it->line, it->n_labels == 1 ? it->labels[0] : NULL, it->value);
}

int config_read_replication(struct config_reader *r, const struct hcl_item *it)
{
    const struct hcl_value *o = it->value;

    /* In JSON a block that holds nothing but these is read as one with a label. */
    if (it->n_labels == 1 && strcmp(it->labels[0], "secondary") == 0)
        return read_object(r, it->line, o);
    if (o->kind != HCL_OBJECT || it->n_labels != 0)
        return config_fail(r, it->line, it->key, "write replication { default_mode = \"flush\" }");
    for (const struct hcl_item *in = o->items; in != NULL; in = in->next) {
        if (strcmp(in->key, "secondary") == 0) {
            if (read_secondaries(r, o, in) != 0)
                return -1;
        } else if (config_check_once(r, o, in) != 0 ||
                   config_read_key(r, in, config_replication_keys, config_replication_known,
                                   r->c) != 0)
            return -1;
    }
    if (r->c->default_wait_ms > REPL_WAIT_MS_MAX || r->c->lag_guard_ms > REPL_WAIT_MS_MAX ||
        r->c->best_effort_wait_ms > REPL_WAIT_MS_MAX || r->c->fence_wait_ms > REPL_WAIT_MS_MAX ||
        r->c->sealed_wait_ms > REPL_WAIT_MS_MAX)
        return config_fail(r, it->line, it->key, "a wait or a lag of more than an hour");
    if (check_word(r, it->line, "default_mode", r->c->default_mode, "async", "flush", "apply") != 0)
        return -1;
    return check_word(r, it->line, "default_on_limit", r->c->default_on_limit, "strict", "fallback",
                      "fallback");
}

/* ---- for the engine ---- */
static int words_of(const char *level, const char *on_limit, enum repl_level *lp,
                    enum repl_on_limit *op, struct err *err)
{
    if (level != NULL && repl_level_parse(level, lp) != 0)
        return err_set(err, ERR_INVAL, 0, "unknown mode %s", level);
    if (on_limit != NULL && repl_on_limit_parse(on_limit, op) != 0)
        return err_set(err, ERR_INVAL, 0, "unknown on_limit %s", on_limit);
    return 0;
}

int config_modes(const struct config *c, struct engine_config *ec, struct err *err)
{
    ec->default_mode.wait_ms = (uint32_t)c->default_wait_ms;
    if (words_of(c->default_mode, c->default_on_limit, &ec->default_mode.level,
                 &ec->default_mode.on_limit, err) != 0)
        return err_wrap(err, "default_mode");
    for (size_t i = 0; i < c->n_secondaries; i++) {
        const struct config_secondary *s = &c->secondaries[i];
        struct engine_member_mode *m = &ec->modes[ec->n_modes++];

        memcpy(m->id, s->id, strlen(s->id) + 1);
        m->wait_ms = (uint32_t)(s->wait_ms != 0 ? s->wait_ms : c->default_wait_ms);
        if (words_of(s->mode, s->on_limit != NULL ? s->on_limit : c->default_on_limit, &m->level,
                     &m->on_limit, err) != 0)
            return err_wrap(err, "secondary %s", s->id);
    }
    return 0;
}
