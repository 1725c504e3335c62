// Package client is what oapi-codegen makes of httpapi/openapi.yaml. The generated
// file is not kept: tools/openapi-clients.sh makes it in a temporary directory. This
// file keeps in go.mod what the generated one imports.
package client

import (
	_ "github.com/oapi-codegen/runtime"
	_ "go.yaml.in/yaml/v3"
)
