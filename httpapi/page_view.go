package httpapi

import "html/template"

// The values that the page's template renders.
type (
	pageView struct {
		Title, Version, Summary string
		Style                   template.CSS
		Intro                   template.HTML
		Groups                  []groupView
		Credentials             []fieldView
		Headers                 []fieldView
		Schemas                 []schemaView
	}
	groupView struct {
		Name, Summary string
		Operations    []operationView
	}
	operationView struct {
		ID, Method, Path, Summary string
		Description               template.HTML
		Credentials               [][]string // alternatives; each is one or several credentials that are sent together
		Parameters                []fieldView
		Body                      *contentView
		Answers                   []answerView
	}
	answerView struct {
		Status      string
		Description template.HTML
		Headers     []string
		Content     *contentView
		Refusals    []refusalView
	}
	refusalView struct {
		Error, Code string
		Description template.HTML
	}
	contentView struct {
		Media    string
		Type     []part
		Required bool
		Examples []exampleView
	}
	exampleView struct{ Title, JSON string }
	schemaView  struct {
		Name        string
		Description template.HTML
		Fields      []fieldView
		Closed      bool
		Type        []part
		Example     string
	}
	fieldView struct {
		Name, In    string
		Anchor      string // the target of links to it, or ""
		Required    bool
		Type        []part
		Rules       []string
		Description template.HTML
	}
	// part is a piece of text. It is a link if Schema names a schema of the page.
	part struct{ Text, Schema string }
)
