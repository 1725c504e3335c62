package httpapi

import (
	"embed"
	"net/http"
	"path"

	"github.com/gorilla/mux"

	"github.com/lotline/lotline/domain"
)

// consoleAssets holds the console: a web page and its scripts. The console is a client
// of the API like any other and uses only the documented routes. The key that a user
// signs in with is sent to the engine in the Authorization header only.
//
//go:embed console
var consoleAssets embed.FS

const (
	consolePath = "/console"
	consolePage = "index.html"
	// consolePolicy lets the page load only the files that are served beside it, and
	// connect only to this host. Its scripts may not parse markup, so no text can
	// become markup.
	consolePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)

var consoleTypes = map[string][]string{
	".css":  {"text/css; charset=utf-8"},
	".html": {"text/html; charset=utf-8"},
	".js":   {"text/javascript; charset=utf-8"},
	".svg":  {"image/svg+xml"},
}

// consoleFile is one of the console's files with its media type.
type consoleFile struct {
	mediaType []string
	content   []byte
}

// consoleFiles reads the console's files. The map's keys are their names.
func consoleFiles() map[string]consoleFile {
	entries, err := consoleAssets.ReadDir("console")
	if err != nil {
		panic("the embedded console cannot be read: " + err.Error())
	}
	files := map[string]consoleFile{}
	for _, e := range entries {
		content, err := consoleAssets.ReadFile("console/" + e.Name())
		if err != nil {
			panic("the embedded console cannot be read: " + err.Error())
		}
		files[e.Name()] = consoleFile{consoleTypes[path.Ext(e.Name())], content}
	}
	return files
}

// serveConsole answers with the file that the path names, or with the page if it names none.
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
