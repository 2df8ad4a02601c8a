package product

import (
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"time"

	"nodeseal.internal/tests/k8s/internal/process"
)

// Triage is what these tests read from `nodeseal etcd triage --json`.
type Triage struct {
	Complete bool           `json:"complete"`
	Objects  []TriageObject `json:"objects"`
	Needs    struct {
		FeatureGate string   `json:"feature_gate"`
		Verbs       []string `json:"verbs"`
		Resources   []string `json:"resources"`
	} `json:"delete_needs"`
	Text string `json:"-"` // all that was printed
}

// TriageObject is one object, and what is said of it.
type TriageObject struct {
	Key    string `json:"key"`
	Reason string `json:"reason"`
	Delete string `json:"delete"`
}

// Triage runs `nodeseal etcd triage` with these arguments and returns its answer and exit code.
func (p *Plugin) Triage(arguments ...string) (Triage, int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	arguments = append([]string{"etcd", "triage", "--json", "--config", p.Config}, arguments...)
	out, err := exec.CommandContext(ctx, process.Binary(p.t, "NODESEAL_BIN", "nodeseal"), arguments...).Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	var triage Triage
	if err := json.Unmarshal(out, &triage); err != nil {
		p.t.Fatalf("`nodeseal %v` printed no JSON: %v\n%s", arguments, err, out)
	}
	triage.Text = string(out)
	if exit != nil {
		triage.Text += string(exit.Stderr)
		return triage, exit.ExitCode()
	}
	return triage, 0
}
