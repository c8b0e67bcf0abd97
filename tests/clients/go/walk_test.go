// SPDX-License-Identifier: GPL-3.0-or-later

// The walk's parts that the unchanged Go client covers, against two servers that the caller started and unsealed:
// LOCKSTEP_A, LOCKSTEP_B (addresses), LOCKSTEP_CA, LOCKSTEP_ROOT, LOCKSTEP_KEYS (two, separated by a comma),
// LOCKSTEP_PID_A (killed before the promotion).
package clients

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	vault "github.com/hashicorp/vault/api"
)

func client(t *testing.T, addr, token string) *vault.Client {
	t.Helper()
	cfg := vault.DefaultConfig()
	cfg.Address = addr
	cfg.MaxRetries = 0
	if err := cfg.ConfigureTLS(&vault.TLSConfig{CACert: os.Getenv("LOCKSTEP_CA")}); err != nil {
		t.Fatal(err)
	}
	c, err := vault.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.SetToken(token)
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func await(t *testing.T, what string, fn func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; {
		if fn() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("waited too long for %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func status(c *vault.Client) map[string]interface{} {
	s, err := c.Logical().Read("sys/replication/dr/status")
	if err != nil || s == nil {
		return map[string]interface{}{}
	}
	return s.Data
}

func TestWalk(t *testing.T) {
	root := os.Getenv("LOCKSTEP_ROOT")
	a, b := client(t, os.Getenv("LOCKSTEP_A"), root), client(t, os.Getenv("LOCKSTEP_B"), os.Getenv("LOCKSTEP_ROOT_B"))
	ctx := context.Background()

	_, err := a.Logical().Write("sys/replication/dr/primary/enable", nil)
	must(t, err)
	w, err := a.Logical().Write("sys/replication/dr/primary/secondary-token", map[string]interface{}{"id": "secondary"})
	must(t, err)
	if w.WrapInfo == nil || w.WrapInfo.TTL != 1800 {
		t.Fatalf("wrap info: %+v", w.WrapInfo)
	}
	_, err = b.Logical().Write("sys/replication/dr/secondary/enable",
		map[string]interface{}{"token": w.WrapInfo.Token, "ca_file": os.Getenv("LOCKSTEP_CA")})
	must(t, err)
	await(t, "the secondary to follow", func() bool { return status(b)["state"] == "stream-wals" })

	must(t, a.Sys().Mount("kv", &vault.MountInput{Type: "kv", Options: map[string]string{"version": "1"}}))
	must(t, a.Sys().Mount("secret", &vault.MountInput{Type: "kv", Options: map[string]string{"version": "2"}}))
	must(t, a.Sys().PutPolicy("app", `path "kv/*" { capabilities = ["read"] }`))
	app, err := a.Auth().Token().Create(&vault.TokenCreateRequest{Policies: []string{"app"}, TTL: "1h"})
	must(t, err)
	for i := 0; i < 20; i++ {
		must(t, a.KVv1("kv").Put(ctx, fmt.Sprint("k", i), map[string]interface{}{"v": fmt.Sprint(i)}))
		_, err = a.KVv2("secret").Put(ctx, fmt.Sprint("k", i), map[string]interface{}{"v": fmt.Sprint(i)})
		must(t, err)
	}
	_, err = b.Auth().Token().LookupSelf()
	if err == nil || !strings.Contains(err.Error(), "path disabled in replication DR secondary mode") {
		t.Fatalf("the secondary answered: %v", err)
	}
	repl, err := b.Logical().Read("sys/replication/status")
	must(t, err)
	if repl.Data["dr"].(map[string]interface{})["mode"] != "secondary" {
		t.Fatalf("replication status: %v", repl.Data)
	}

	st, err := b.Sys().GenerateDROperationTokenInit("", "")
	must(t, err)
	otp := st.OTP
	if len(otp) != 26 {
		t.Fatalf("OTP of %d characters", len(otp))
	}
	for _, k := range strings.Split(os.Getenv("LOCKSTEP_KEYS"), ",") {
		st, err = b.Sys().GenerateDROperationTokenUpdate(k, st.Nonce)
		must(t, err)
	}
	if !st.Complete {
		t.Fatalf("not complete: %+v", st)
	}
	raw, err := base64.RawStdEncoding.DecodeString(st.EncodedToken)
	must(t, err)
	for i := range raw {
		raw[i] ^= otp[i]
	}

	await(t, "lag 0", func() bool {
		x, y := status(a), status(b)
		return x["last_dr_wal"] != nil && fmt.Sprint(x["last_dr_wal"]) == fmt.Sprint(y["applied_lsn"])
	})
	pid, err := strconv.Atoi(os.Getenv("LOCKSTEP_PID_A"))
	must(t, err)
	must(t, syscall.Kill(pid, syscall.SIGKILL))
	p, err := b.Logical().Write("sys/replication/dr/secondary/promote", map[string]interface{}{"dr_operation_token": string(raw)})
	must(t, err)
	if len(p.Warnings) == 0 || !strings.Contains(p.Warnings[0], "being promoted to a replication primary") {
		t.Fatalf("promote answered %+v", p)
	}
	b.SetToken(root)
	await(t, "service", func() bool { _, err := b.Auth().Token().LookupSelf(); return err == nil })
	for i := 0; i < 20; i++ {
		v1, err := b.KVv1("kv").Get(ctx, fmt.Sprint("k", i))
		must(t, err)
		v2, err := b.KVv2("secret").Get(ctx, fmt.Sprint("k", i))
		must(t, err)
		if v1.Data["v"] != fmt.Sprint(i) || v2.Data["v"] != fmt.Sprint(i) {
			t.Fatalf("k%d: %v %v", i, v1.Data, v2.Data)
		}
	}
	b.SetToken(app.Auth.ClientToken)
	if _, err = b.KVv1("kv").Get(ctx, "k1"); err != nil {
		t.Fatal(err)
	}
	if err = b.KVv1("kv").Put(ctx, "k1", map[string]interface{}{"v": "x"}); err == nil {
		t.Fatal("a read-only token wrote")
	}
}
