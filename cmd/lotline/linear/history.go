package linear

import (
	"io"
	"time"

	"github.com/anishathalye/porcupine"
)

// History is what clients recorded of one distribution.
type History []porcupine.Operation

// Add adds an operation. Called and returned count from one time for all operations.
// An operation of unknown outcome may have happened at any time since the call; the
// process that sent it must not send another.
func (h *History) Add(process int, called time.Duration, in Input, returned time.Duration, out Output) {
	if out.Unknown {
		returned = time.Hour
	}
	*h = append(*h, porcupine.Operation{ClientId: process, Input: in, Call: int64(called), Output: out, Return: int64(returned)})
}

// Timeout bounds the search for an order. It takes a second or less otherwise.
const Timeout = 2 * time.Minute

// Check searches for an order of the operations in which a distribution on so many
// nodes answers as the history says.
func (h History) Check(nodes int) porcupine.CheckResult {
	return porcupine.CheckOperationsTimeout(model(nodes), h, Timeout)
}

// Draw writes a web page that shows the history and how far an order explains it.
func (h History) Draw(nodes int, to io.Writer) error {
	m := model(nodes)
	_, info := porcupine.CheckOperationsVerbose(m, h, Timeout)
	return porcupine.Visualize(m, info, to)
}
