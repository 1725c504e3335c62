package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/itchyny/gojq"
)

// asJq is the name under which the test binary runs as a small jq. It can do what the
// documents use, so that the tests do not need jq. Unlike jq it sorts the members of an
// object by name.
const asJq = "jq"

// errFalse is the error of jq -e if its last result is false or null.
var errFalse = errors.New("jq: false")

func jqMain(arguments []string) error {
	raw, judge := false, false
	var operands []string
	for _, a := range arguments {
		switch a {
		case "-r":
			raw = true
		case "-c": // it always writes one line
		case "-e":
			judge = true
		default:
			operands = append(operands, a)
		}
	}
	query, err := gojq.Parse(operands[0])
	if err != nil {
		return err
	}
	in := os.Stdin
	if len(operands) > 1 {
		if in, err = os.Open(operands[1]); err != nil {
			return err
		}
		defer in.Close()
	}
	last := any(nil)
	for d := json.NewDecoder(in); ; {
		var v any
		if err := d.Decode(&v); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		for results := query.Run(v); ; {
			result, more := results.Next()
			if !more {
				break
			}
			if err, bad := result.(error); bad {
				return err
			}
			last = result
			if text, ok := result.(string); ok && raw {
				fmt.Fprintln(os.Stdout, text)
				continue
			}
			out, err := gojq.Marshal(result)
			if err != nil {
				return err
			}
			fmt.Fprintf(os.Stdout, "%s\n", out)
		}
	}
	if judge && (last == nil || last == false) {
		return errFalse
	}
	return nil
}
