package wire

import (
	"net"
	"testing"
	"time"

	"nodeseal.internal/tests/k8s/internal/product"
)

func TestTwoThousandIdleConnectionsLockNobodyOut(t *testing.T) {
	p := product.Start(t)
	early := client(t, "v2", connect(t, p))
	if err := roundTrip(within(t), early); err != nil {
		t.Fatal(err)
	}
	for n := range 2000 {
		idle, err := net.DialTimeout("unix", p.Socket, 5*time.Second)
		if err != nil {
			t.Fatalf("idle connection %d: %v", n, err)
		}
		defer idle.Close()
	}
	begin := time.Now()
	if err := roundTrip(within(t), client(t, "v2", connect(t, p))); err != nil {
		t.Errorf("a new client: %v", err)
	}
	if err := roundTrip(within(t), early); err != nil {
		t.Errorf("a client from before: %v", err)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("the two took %v, want a second at most", took)
	}
}
