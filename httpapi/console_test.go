package httpapi

import (
	"io/fs"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

func TestConsole_isServedWithoutAKeyUnderAStrictPolicy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.CaughtUp = func() bool { return false } })
	for path, mediaType := range map[string]string{
		"/console":             "text/html; charset=utf-8",
		"/console/":            "text/html; charset=utf-8",
		"/console/main.js":     "text/javascript; charset=utf-8",
		"/console/console.css": "text/css; charset=utf-8",
		"/console/icon.svg":    "image/svg+xml",
	} {
		a := w.do(http.MethodGet, path, "", header("Authorization")).is(http.StatusOK)
		policy := a.Header().Get("Content-Security-Policy")
		if a.Header().Get("Content-Type") != mediaType || a.Header().Get("X-Content-Type-Options") != "nosniff" || a.Body.Len() == 0 {
			t.Errorf("%s: %v", path, a.Header())
		}
		for _, part := range []string{
			"default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'",
			"base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
		} {
			if !strings.Contains(policy, part) {
				t.Errorf("%s: the policy lacks %s: %s", path, part, policy)
			}
		}
		if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
			t.Errorf("%s: the policy lets too much through: %s", path, policy)
		}
	}
	w.do(http.MethodGet, "/console/nothing.js", "").refuses(http.StatusNotFound, "Not found")
	w.do(http.MethodGet, "/console/../router.go", "").refuses(http.StatusNotFound, "Not found")
	w.do(http.MethodPost, "/console", "").refuses(http.StatusMethodNotAllowed, "Method not allowed")
}

// Every file that another one refers to is served. No script stores anything in the browser
// or turns text into markup.
func TestConsole_filesAreCompleteAndFollowTheRules(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	named := regexp.MustCompile(`(?:src|href)="(/console/[^"]+)"|from '\./([^']+)'`)
	forbidden := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|localStorage|sessionStorage|indexedDB|document\.cookie|\beval\(|new Function|https?://(?:www\.)?[a-z]`)
	names := 0
	err := fs.WalkDir(consoleAssets, "console", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		content, err := consoleAssets.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range named.FindAllStringSubmatch(string(content), -1) {
			names++
			at := m[1]
			if m[2] != "" {
				at = "/console/" + m[2]
			}
			w.do(http.MethodGet, at, "").is(http.StatusOK)
		}
		outside := strings.ReplaceAll(string(content), "http://www.w3.org/2000/svg", "")
		if found := forbidden.FindString(outside); found != "" {
			t.Errorf("%s uses %s", path, found)
		}
		if strings.HasSuffix(path, ".html") && regexp.MustCompile(`(?i)<style|\sstyle=|\son[a-z]+=|<script(?:>|[^>]*>[^<])`).Match(content) {
			t.Errorf("%s has a script or a style inside", path)
		}
		return nil
	})
	if err != nil || names < 10 {
		t.Errorf("%d names found: %v", names, err)
	}
}
