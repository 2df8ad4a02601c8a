package product

import (
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"testing"

	"nodeseal.internal/tests/k8s/internal/process"
)

// Migration is what these tests read from the answers of `nodeseal migrate`.
type Migration struct {
	KeyIDHash  string `json:"key_id_hash"`
	Ready      bool   `json:"ready"`
	Agreed     bool   `json:"agreed"`
	Complete   bool   `json:"complete"`
	WaitsFor   string `json:"waits_for"`
	APIServers []struct {
		URL    string `json:"url"`
		Agrees *bool  `json:"agrees"`
	} `json:"api_servers"`
	Resources []MigratedResource `json:"resources"`
	Scan      *Scan              `json:"scan"`
	Retire    []struct {
		ID string `json:"id"`
	} `json:"retire"`
	Removed []string `json:"removed"`
	Next    []string `json:"next"`
	Error   string   `json:"error"`
	Text    string   `json:"-"` // all that was printed
}

// MigratedResource is a resource of one of them.
type MigratedResource struct {
	Resource string   `json:"resource"`
	By       string   `json:"by"`
	State    string   `json:"state"`
	Objects  int      `json:"objects"`
	Failed   int      `json:"failed"`
	Names    []string `json:"names"`
}

// Migrating is a `nodeseal migrate` that may still run.
type Migrating struct {
	t        testing.TB
	cmd      *exec.Cmd
	out, err bytes.Buffer
}

// BeginMigrate starts `nodeseal migrate` with these arguments.
func (p *Plugin) BeginMigrate(arguments ...string) *Migrating {
	p.t.Helper()
	arguments = append([]string{"migrate", "--json", "--config", p.Config}, arguments...)
	m := &Migrating{t: p.t, cmd: exec.Command(process.Binary(p.t, "NODESEAL_BIN", "nodeseal"), arguments...)}
	m.cmd.Stdout, m.cmd.Stderr = &m.out, &m.err
	if err := m.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { m.cmd.Process.Kill() })
	return m
}

// Kill ends it as kill -9 does.
func (m *Migrating) Kill() {
	m.cmd.Process.Kill()
	m.cmd.Wait()
}

// End waits for its answer and its exit code.
func (m *Migrating) End() (Migration, int) {
	m.t.Helper()
	var exit *exec.ExitError
	if err := m.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		m.t.Fatal(err)
	}
	var answer Migration
	if err := json.Unmarshal(m.out.Bytes(), &answer); err != nil {
		m.t.Fatalf("`nodeseal %v` printed no JSON: %v\n%s\n%s", m.cmd.Args, err, m.out.String(), m.err.String())
	}
	answer.Text = m.out.String() + m.err.String()
	return answer, m.cmd.ProcessState.ExitCode()
}

// Migrate is both.
func (p *Plugin) Migrate(arguments ...string) (Migration, int) {
	p.t.Helper()
	return p.BeginMigrate(arguments...).End()
}

// Retire destroys a KEK.
func (p *Plugin) Retire(id string, arguments ...string) {
	p.t.Helper()
	p.run(nil, append([]string{"keys", "retire", id, "--confirm", id}, arguments...)...)
}
