package product

import (
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"time"

	"nodeseal.internal/tests/k8s/internal/process"
)

// Scan is what these tests read from `nodeseal etcd scan --json`.
type Scan struct {
	Revision int64         `json:"revision"`
	Complete bool          `json:"complete"`
	Objects  int           `json:"objects"`
	Groups   []ScanGroup   `json:"groups"`
	Findings []ScanFinding `json:"findings"`
	Text     string        `json:"-"` // all that was printed
}

// ScanGroup is objects that are alike.
type ScanGroup struct {
	Resource   string         `json:"resource"`
	Encryption string         `json:"encryption"`
	Provider   string         `json:"provider"`
	KeyIDHash  string         `json:"key_id_hash"`
	KEK        string         `json:"kek"`
	Objects    int            `json:"objects"`
	Seeds      int            `json:"seeds"`
	Current    *bool          `json:"current"`
	Opens      map[string]int `json:"opens"`
}

// ScanFinding is one of its findings.
type ScanFinding struct {
	ID       string   `json:"id"`
	Resource string   `json:"resource"`
	Objects  int      `json:"objects"`
	Names    []string `json:"names"`
}

// Scan runs `nodeseal etcd scan` with these arguments and returns its answer and exit code.
func (p *Plugin) Scan(arguments ...string) (Scan, int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	arguments = append([]string{"etcd", "scan", "--json", "--config", p.Config}, arguments...)
	cmd := exec.CommandContext(ctx, process.Binary(p.t, "NODESEAL_BIN", "nodeseal"), arguments...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	var scan Scan
	if err := json.Unmarshal(out, &scan); err != nil {
		p.t.Fatalf("`nodeseal %v` printed no JSON: %v\n%s", arguments, err, out)
	}
	scan.Text = string(out)
	if exit != nil {
		scan.Text += string(exit.Stderr)
		return scan, exit.ExitCode()
	}
	return scan, 0
}
