/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_image.c - a node comes back from an older image of its disk, as from a backup of the machine.
 *
 * A secondary catches up, or takes a copy, and the primary counts nothing on it that it had before.
 * A primary of before is fenced, and takes nobody along: who follows it keeps what it knows as
 * committed. What is promised of a node goes with its disk, so who serves now is given no old image
 * here: that has scenarios of its own (lost_history, restored_primary,
 * lost_history_stays, lost_history_unmet).
 */
#include "sim_private.h"

#include <stdio.h>
#include <string.h>

void image_drop(struct node *n)
{
    disk_image_free(n->older.image);
    n->older.image = NULL;
    n->older.primary = false;
}

/* Of a machine that runs, often of the primary, which is one of many: what is not flushed yet may
 * be in it or not. */
void op_image(struct world *w)
{
    int i = chance(w, 40) ? w->primary : any_node(w);
    struct node *n = &w->n[i];

    if (!node_up(w, i) || n->damaged ||
        (n->role != ENGINE_SECONDARY && (n->role != ENGINE_PRIMARY || i != w->primary)))
        return;
    if (n->older.primary && n->role != ENGINE_PRIMARY && chance(w, 80))
        return; /* it is seldom made */
    image_drop(n);
    n->older.image = disk_image_clone(n->image);
    sim_check(w, n->older.image != NULL, "out of memory");
    n->older.primary = n->role == ENGINE_PRIMARY;
    n->older.named = n->named;
    n->older.open = n->serve.open;
    memcpy(n->older.path, n->path, sizeof(n->path));
    note(w, i, "an image of its disk is set aside");
}

/* The directory has another name if an engine ended itself since. */
static void rename_in(struct world *w, int i, struct disk_image *image)
{
    struct node *n = &w->n[i];
    struct disk *d = disk_sim_new(image, &n->env.env);
    struct err err;

    sim_check(w, d != NULL, "no simulated disk");
    if (strcmp(n->older.path, n->path) != 0 &&
        (d->ops->rename(d, n->older.path, n->path, &err) != 0 ||
         d->ops->sync_dir(d, "/", &err) != 0))
        sim_fail(w, "node %d: rename: %s", i, err.msg);
    disk_free(d);
}

static bool may_return(struct world *w, int i)
{
    const struct node *n = &w->n[i];

    return n->older.image != NULL && i != w->primary &&
           (n->role != ENGINE_PRIMARY || (!n->named && !n->older.primary)) &&
           (!n->older.primary || op_serves(w, w->primary));
}

/* Any that may, but rather one that was the primary, which is seldom. */
void op_older(struct world *w)
{
    int first = any_node(w), i = -1;
    struct disk_image *image;
    struct node *n;
    bool primary;

    for (int k = 0; k < (int)w->n_nodes; k++) {
        int at = (first + k) % (int)w->n_nodes;

        if (may_return(w, at) && (i < 0 || w->n[at].older.primary))
            i = at;
    }
    if (i < 0)
        return;
    n = &w->n[i];
    image = n->older.image;
    primary = n->older.primary;
    fault(w, primary ? F_OLDER_PRIMARY : F_OLDER, i, "of %s", n->older.path);
    n->older.image = NULL;
    n->older.primary = false;
    if (chance(w, 30))
        disk_image_kill(image);
    else
        disk_image_crash(image);
    node_take(w, i, image);
    rename_in(w, i, image);
    if (primary) {
        watch_forget(w, i);
        serve_restored(w, i);
    } else {
        watch_older(w, i);
        n->serve.open += n->older.open;
    }
    n->damaged = false;
    n->named = n->older.named;
}
