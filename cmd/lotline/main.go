// Command lotline runs the distribution engine and administers it.
//
// This package turns flags and environment variables into configuration and wires
// the other packages together. It is the only package that imports all of them. It
// must not hold rules of any kind.
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
	exitFault  = 1 // something failed while the program ran
	exitConfig = 2 // the configuration is wrong: the one line on stderr says why
)

// configError is an error that the user has to fix: in the flags, the environment or
// the data directory.
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
	Keys    keysCmd    `cmd:"" help:"Administer API keys."`
	Signing signingCmd `cmd:"" help:"Administer the keys that sign tokens."`
	Bench   benchCmd   `cmd:"" help:"Measure an engine under load, and check its answers afterwards."`
	Version versionCmd `cmd:"" help:"Print the version, and the edition of the time zones."`

	BenchServer benchServerCmd `cmd:"" hidden:"" help:"Run a server for bench to measure."`
}

func main() {
	// New files are readable by this user only. SQLite creates its files with the
	// modes that the umask leaves.
	unix.Umask(privateUmask)
	ctx, stop := signal.NotifyContext(context.Background(), endSignals()...)
	context.AfterFunc(ctx, func() {
		// A second signal ends the process at once.
		stop()
		// When a terminal hangs up, the process that reads our output may end too.
		// SIGPIPE must not end this process while it is shutting down.
		signal.Ignore(syscall.SIGPIPE)
	})
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// endSignals returns the signals on which the program shuts down in order. It leaves
// out signals that the process was started to ignore: nohup ignores SIGHUP.
func endSignals() []os.Signal {
	return slices.DeleteFunc([]os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP}, signal.Ignored)
}

// run runs one command and returns the exit code. Commands that serve run until ctx
// ends.
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
		// "(short flag)" is how the parser explains itself. It does not help the user.
		fmt.Fprintln(stderr, "lotline:", strings.ReplaceAll(err.Error(), " (short flag)", ""))
		return exitConfig
	}
	command.BindTo(ctx, (*context.Context)(nil))
	command.Bind(&c.settings, output{stdout, stderr})
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

// output has the writers that a command prints to.
type output struct{ out, err io.Writer }

type versionCmd struct{}

func (versionCmd) Run(to output) error {
	_, err := fmt.Fprintf(to.out, "lotline %s\ntime zones %s\n", programVersion(), domain.CurrentZones().Edition())
	return err
}

func programVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(development)"
}
