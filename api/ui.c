/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * ui.c - the operator's page at /ui/ (`ui = true`): three files that are part of the program.
 *
 * The page is static and asks the same API as everybody. It may load nothing from elsewhere, run
 * nothing that is not its own file, be framed by nobody and send forms nowhere: what a page that
 * takes unseal keys needs. sys/config/ui/headers adds to its headers; a second policy can only
 * tighten the first.
 */
#include <string.h>

#include "core.h"
#include "sys.h"
#include "ui_files.h"

#define POLICY                                                                                     \
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " \
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

static const struct {
    const char *path, *type, *text;
} files[] = {{"/ui/", "text/html; charset=utf-8", ui_index_html},
             {"/ui/app.js", "text/javascript; charset=utf-8", ui_app_js},
             {"/ui/style.css", "text/css; charset=utf-8", ui_style_css}};

bool ui_path(const char *path)
{
    return strcmp(path, "/") == 0 || strcmp(path, "/ui") == 0 || strncmp(path, "/ui/", 4) == 0;
}

void ui_answer(struct core *c, const char *method, const char *path, struct response *rs,
               struct buf *headers)
{
    rs->content_type = "text/plain; charset=utf-8";
    if (c->config->ui && (strcmp(path, "/") == 0 || strcmp(path, "/ui") == 0)) {
        rs->status = 307;
        rs->text = "";
        buf_adds(headers, "Location: /ui/\r\n");
        return;
    }
    for (size_t i = 0; c->config->ui && i < sizeof(files) / sizeof(files[0]); i++) {
        if (strcmp(path, files[i].path) != 0)
            continue;
        if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0) {
            reply_no_errors(rs, 405);
            return;
        }
        rs->status = 200;
        rs->text = files[i].text;
        rs->content_type = files[i].type;
        buf_adds(headers, "Content-Security-Policy: " POLICY "\r\n"
                          "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
                          "Cross-Origin-Opener-Policy: same-origin\r\nX-Frame-Options: DENY\r\n");
        if (!core_sealed(c))
            ui_headers_add(c, headers);
        return;
    }
    rs->status = 404;
    rs->text = "404 page not found\n";
}
