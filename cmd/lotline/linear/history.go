package linear

import (
	"io"
	"time"

	"github.com/anishathalye/porcupine"
)

// History has the operations on one distribution, as clients recorded them.
type History []porcupine.Operation

// Add adds an operation. called and returned are its times since the same moment for all
// operations. An operation of unknown outcome may take effect at any time after the call.
// The process that sent it must not send another one.
func (h *History) Add(process int, called time.Duration, in Input, returned time.Duration, out Output) {
	if out.Unknown {
		returned = time.Hour
	}
	*h = append(*h, porcupine.Operation{ClientId: process, Input: in, Call: int64(called), Output: out, Return: int64(returned)})
}

// Timeout limits how long Check and Draw search for an order. A search normally takes a
// second or less.
const Timeout = 2 * time.Minute

// Check searches for an order of the operations in which every recorded answer is right.
// nodes is the number of nodes that answered.
func (h History) Check(nodes int) porcupine.CheckResult {
	return porcupine.CheckOperationsTimeout(model(nodes), h, Timeout)
}

// Draw writes a web page with the history and the longest order that explains its answers.
func (h History) Draw(nodes int, to io.Writer) error {
	m := model(nodes)
	_, info := porcupine.CheckOperationsVerbose(m, h, Timeout)
	return porcupine.Visualize(m, info, to)
}
