// Command lotline runs the distribution engine and administers it.
//
// This package turns flags and environment into configuration and wires the
// parts together; it is the only one that knows all of them. It must not hold
// rules of any kind.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	"golang.org/x/sys/unix"

	"github.com/lotline/lotline/domain"
)

// Exit codes beside 0.
const (
	exitFault  = 1 // something broke while running
	exitConfig = 2 // it cannot run like this: the one line on stderr says why
)

// configError is something that whoever starts the program has to change.
type configError struct{ error }

func (e configError) Unwrap() error { return e.error }

func badConfig(format string, args ...any) error {
	return configError{fmt.Errorf(format, args...)}
}

// cli is every command and flag. Each flag can also be given in the environment.
type cli struct {
	settings

	Serve   serveCmd   `cmd:"" help:"Run the engine."`
	Store   storeCmd   `cmd:"" help:"Run the embedded event store alone, for several engines to share."`
	Backup  backupCmd  `cmd:"" help:"Copy the log of the data directory to a file, while it is in use."`
	Org     orgCmd     `cmd:"" help:"Administer organizations."`
	Keys    keysCmd    `cmd:"" help:"Administer keys."`
	Signing signingCmd `cmd:"" help:"Administer the keys by which tokens are signed."`
	Bench   benchCmd   `cmd:"" help:"Measure an engine under load, and check what it says afterwards."`
	Version versionCmd `cmd:"" help:"Print the version, and the edition of the time zones."`

	BenchServer benchServerCmd `cmd:"" hidden:"" help:"Serve what bench measures."`
}

func main() {
	// What is made is for this user only, SQLite's files as well, whose modes it
	// leaves to the umask.
	unix.Umask(privateUmask)
	ctx, stop := signal.NotifyContext(context.Background(), endSignals()...)
	context.AfterFunc(ctx, func() {
		// A second signal ends the process at once.
		stop()
		// When a terminal hangs up, what reads our output may end with it. That must
		// not end the process in the middle of shutting down.
		signal.Ignore(syscall.SIGPIPE)
	})
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// endSignals are the signals on which the program ends in order. One that the process
// was started to ignore is not among them: nohup has SIGHUP ignored.
func endSignals() []os.Signal {
	return slices.DeleteFunc([]os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP}, signal.Ignored)
}

// run is the program without its process: it ends when the command does or, for
// those that serve, when ctx does.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var c cli
	helped := false
	parser, err := kong.New(&c,
		kong.Name("lotline"),
		kong.Description("Distribution of scarce things by queue, draw and auction, as events that anybody can check."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { helped = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		fmt.Fprintln(stderr, "lotline:", err)
		return exitFault
	}
	command, err := parser.Parse(args)
	if helped {
		return 0
	}
	if err != nil {
		// What the parser took a value for helps nobody.
		fmt.Fprintln(stderr, "lotline:", strings.ReplaceAll(err.Error(), " (short flag)", ""))
		return exitConfig
	}
	command.BindTo(ctx, (*context.Context)(nil))
	command.Bind(&c.settings, streams{stdout, stderr})
	err = c.useZones()
	if err == nil {
		err = command.Run()
	}
	if err != nil {
		fmt.Fprintln(stderr, "lotline:", err)
		if _, ok := errors.AsType[configError](err); ok {
			return exitConfig
		}
		return exitFault
	}
	return 0
}

// streams are where a command prints.
type streams struct{ out, err io.Writer }

type versionCmd struct{}

func (versionCmd) Run(to streams) error {
	_, err := fmt.Fprintf(to.out, "lotline %s\ntime zones %s\n", programVersion(), domain.CurrentZones().Edition())
	return err
}

func programVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(development)"
}
