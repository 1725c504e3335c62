package main

import (
	"strings"
	"testing"
)

// organizationOf asks an engine which organization a key belongs to. A key that was
// made a moment ago works after a moment.
func organizationOf(t *testing.T, e *engine, key string) map[string]any {
	t.Helper()
	eventually(t, "the key works", func() bool { return e.call("GET", "/api/v1/organization", key, "").status == 200 })
	return e.must(200, "GET", "/api/v1/organization", key, "").object(t)
}

// Every organization may call itself default. The command line still finds the organization
// that the first start made, even if that organization has another name now.
func TestOrg_aTenantThatCallsItselfDefaultIsNotHandedOut(t *testing.T) {
	t.Parallel()
	for name, kept := range map[string]bool{"the first organization has kept the name": true, "it has another name": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := dataDirectory(t)
			e := testBinary(t).serve(t, dir)
			first := organizationOf(t, e, e.secretKey())["id"].(string)
			tenant := admin(t, dir, "org", "create", "--name=Tenant")
			tenantsKey := admin(t, dir, "keys", "create", "--org=Tenant")
			organizationOf(t, e, tenantsKey)
			if !kept {
				admin(t, dir, "org", "update", "--name=Acme")
			}
			e.must(200, "PUT", "/api/v1/organization", tenantsKey, `{"name":"default"}`)

			for _, org := range [][]string{nil, {"--org=default"}} {
				made := admin(t, dir, append([]string{"keys", "create", "--name=made"}, org...)...)
				if o := organizationOf(t, e, made); o["id"] != first {
					t.Errorf("keys create %v: a key of %v, want one of %s", org, o, first)
				}
				if shown := admin(t, dir, append([]string{"org", "show"}, org...)...); !strings.Contains(shown, first) {
					t.Errorf("org show %v: want %s, got\n%s", org, first, shown)
				}
				if shown := admin(t, dir, append([]string{"org", "update", "--time-zone=Europe/Berlin"}, org...)...); !strings.Contains(shown, first) {
					t.Errorf("org update %v: want %s, got\n%s", org, first, shown)
				}
			}
			if list := admin(t, dir, "keys", "list", "--org=default"); !strings.Contains(list, "first start") {
				t.Errorf("the list is not of %s:\n%s", first, list)
			}
			if o := organizationOf(t, e, tenantsKey); o["timeZone"] != "UTC" {
				t.Errorf("the tenant was changed: %v", o)
			}
			// Its id still finds the tenant.
			if o := organizationOf(t, e, admin(t, dir, "keys", "create", "--org="+tenant)); o["id"] != tenant {
				t.Errorf("a key of %v, want one of %s", o, tenant)
			}
			e.terminate()
			const provisioned = "sk_live_provisioned-key-0001"
			if o := organizationOf(t, testBinary(t).serve(t, dir, "LOTLINE_SECRET_KEY="+provisioned), provisioned); o["id"] != first {
				t.Errorf("LOTLINE_SECRET_KEY is a key of %v, want one of %s", o, first)
			}
		})
	}
}

// Several organizations may have one name, and a list shows which of them has a key.
func TestOrg_theListOfKeysTellsNamesakesApart(t *testing.T) {
	t.Parallel()
	dir := dataDirectory(t)
	for _, name := range []string{"a", "b"} {
		org := admin(t, dir, "org", "create", "--name=Acme")
		admin(t, dir, "keys", "create", "--org="+org, "--name=of-"+name)
		if line := lineOf(admin(t, dir, "keys", "list"), "of-"+name); !strings.Contains(line, org) {
			t.Errorf("the line does not name %s: %s", org, line)
		}
	}
	for _, args := range [][]string{{"keys", "create", "--org=Acme"}, {"keys", "list", "--org=Acme"}, {"org", "show", "--org=Acme"}} {
		stdout, stderr, code := testBinary(t).run(t, []string{"LOTLINE_DATA_DIR=" + dir}, args...)
		if code != exitConfig || stdout != "" || !strings.Contains(stderr, "give the id") {
			t.Errorf("%v: exit %d, stdout %q, stderr %q", args, code, stdout, stderr)
		}
	}
}

// Organizations choose the names that the operator's terminal shows. The terminal must not
// execute anything in a name.
func TestOrg_namesCannotRewriteTheOperatorsTerminal(t *testing.T) {
	t.Parallel()
	dir := dataDirectory(t)
	// A control sequence that clears the line, and a mark that turns the text around.
	const name = "Ac\u009b2Kme \u202eemcA"
	org := admin(t, dir, "org", "create", "--name="+name)
	admin(t, dir, "keys", "create", "--org="+org, "--name="+name)
	for _, shown := range []string{admin(t, dir, "org", "show", "--org="+org), admin(t, dir, "keys", "list")} {
		if strings.ContainsAny(shown, "\u009b\u202e") || !strings.Contains(shown, `"Ac\u009b2Kme \u202eemcA"`) {
			t.Errorf("shown: %q", shown)
		}
	}
}

// A text in the form of an id is always taken as an id. An organization whose name is such
// a text is not found by it, whether or not another organization has that id.
func TestOrg_aTenantNamedLikeAnIDIsNotFoundByIt(t *testing.T) {
	t.Parallel()
	dir := dataDirectory(t)
	acme := admin(t, dir, "org", "create", "--name=Acme")
	const nobodys = "org_00000000000000000000000000"
	for _, name := range []string{acme, nobodys} {
		admin(t, dir, "org", "create", "--name="+name)
	}
	if shown := admin(t, dir, "org", "show", "--org="+acme); !strings.Contains(lineOf(shown, "name"), "Acme") {
		t.Errorf("want Acme, got\n%s", shown)
	}
	stdout, stderr, code := testBinary(t).run(t, []string{"LOTLINE_DATA_DIR=" + dir}, "org", "show", "--org="+nobodys)
	if code != exitConfig || stdout != "" || !strings.Contains(stderr, "there is no organization") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

// Before the first start there is no default organization. The command line does not use
// another organization instead.
func TestOrg_beforeTheFirstStartThereIsNoDefault(t *testing.T) {
	t.Parallel()
	dir := dataDirectory(t)
	admin(t, dir, "org", "create", "--name=default")
	stdout, stderr, code := testBinary(t).run(t, []string{"LOTLINE_DATA_DIR=" + dir}, "keys", "create")
	if code != exitConfig || stdout != "" || !strings.Contains(stderr, "the first start makes") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestOrg_isShownAndChanged(t *testing.T) {
	t.Parallel()
	dir := dataDirectory(t)
	e := testBinary(t).serve(t, dir)
	key := e.secretKey()
	shown := admin(t, dir, "org", "show")
	id := e.must(200, "GET", "/api/v1/organization", key, "").object(t)["id"].(string)
	for name, value := range map[string]string{"id": id, "name": "default", "time zone": "UTC", "currency": "USD"} {
		if line := lineOf(shown, name); strings.Join(strings.Fields(strings.TrimPrefix(line, name)), " ") != value {
			t.Errorf("%s: %q in\n%s", name, line, shown)
		}
	}
	changed := admin(t, dir, "org", "update", "--name=Acme", "--time-zone=Europe/Berlin")
	if again := admin(t, dir, "org", "show", "--org="+id); again != changed || !strings.Contains(changed, "Europe/Berlin") {
		t.Errorf("changed to\n%s\nshown as\n%s", changed, again)
	}
	eventually(t, "the engine knows", func() bool {
		o := e.must(200, "GET", "/api/v1/organization", key, "").object(t)
		return o["name"] == "Acme" && o["timeZone"] == "Europe/Berlin" && o["currencyCode"] == "USD"
	})
	// The default organization stays the default after a new name.
	made := admin(t, dir, "keys", "create")
	eventually(t, "a key for it works", func() bool { return e.call("GET", "/api/v1/organization", made, "").status == 200 })
	if a := e.must(200, "GET", "/api/v1/organization", made, "").object(t); a["id"] != id {
		t.Errorf("got %v", a)
	}
	if code := e.terminate(); code != 0 {
		t.Errorf("exit %d", code)
	}
	testBinary(t).serve(t, dir).must(200, "GET", "/api/v1/organization", key, "")
	if list := admin(t, dir, "keys", "list"); strings.Count(list, "first start") != 2 {
		t.Errorf("it was made again:\n%s", list)
	}
	for _, args := range [][]string{
		{"org", "update"},
		{"org", "update", "--time-zone=Mars/Olympus"},
		{"org", "update", "--currency=XYZ"},
		{"org", "update", "--org=nobody", "--name=x"},
		{"org", "show", "--org=nobody"},
	} {
		stdout, stderr, code := testBinary(t).run(t, []string{"LOTLINE_DATA_DIR=" + dir}, args...)
		if code != exitConfig || stdout != "" || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: exit %d, stdout %q, stderr %q", args, code, stdout, stderr)
		}
	}
}
