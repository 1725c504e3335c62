package httpapi

import (
	"embed"
	"net/http"
	"path"

	"github.com/gorilla/mux"

	"github.com/lotline/lotline/domain"
)

// The console is a page and its scripts. It is a client of the API like any
// other: it has no way in beside the routes that everybody has, and the key that
// somebody signs in with never reaches the engine but in the Authorization header.
//
//go:embed console
var consoleAssets embed.FS

const (
	consolePath = "/console"
	consolePage = "index.html"
	// consolePolicy lets the page load what is served beside it and talk to this
	// host, and nothing else. No text can become markup, because no script of
	// the page may parse any.
	consolePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)

var consoleTypes = map[string][]string{
	".css":  {"text/css; charset=utf-8"},
	".html": {"text/html; charset=utf-8"},
	".js":   {"text/javascript; charset=utf-8"},
	".svg":  {"image/svg+xml"},
}

// consoleFile is one of the console's files, ready to be sent.
type consoleFile struct {
	mediaType []string
	content   []byte
}

// consoleFiles are the console's files by their names.
func consoleFiles() map[string]consoleFile {
	entries, err := consoleAssets.ReadDir("console")
	if err != nil {
		panic("what is embedded cannot be read: " + err.Error())
	}
	files := map[string]consoleFile{}
	for _, e := range entries {
		content, err := consoleAssets.ReadFile("console/" + e.Name())
		if err != nil {
			panic("what is embedded cannot be read: " + err.Error())
		}
		files[e.Name()] = consoleFile{consoleTypes[path.Ext(e.Name())], content}
	}
	return files
}

// serveConsole answers with the file in the path, or with the page.
func (s *server) serveConsole(x *exchange, r *http.Request) error {
	name, ok := mux.Vars(r)["file"]
	if !ok {
		name = consolePage
	}
	f, ok := s.console[name]
	if !ok {
		return domain.Refuse(notFound, "the console has no such file")
	}
	h := x.Header()
	h.Set("Content-Security-Policy", consolePolicy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	x.json(r, http.StatusOK, f.mediaType, f.content)
	return nil
}
