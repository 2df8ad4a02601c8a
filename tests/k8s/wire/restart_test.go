package wire

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"nodeseal.internal/tests/k8s/internal/process"
	"nodeseal.internal/tests/k8s/internal/product"
)

// A client whose connection is closed in good order sends anew what the server has not begun. So the only error that
// it may see is its own impatience, while nobody listens.
func TestAStopFinishesWhatHasBegunAndTheConnectionComesBack(t *testing.T) {
	p := product.Start(t)
	c := client(t, "v2", connect(t, p))
	var (
		workers sync.WaitGroup
		done    atomic.Int64
		stop    = make(chan struct{})
		once    sync.Once
	)
	halt := func() {
		once.Do(func() { close(stop) })
		workers.Wait()
	}
	defer halt()
	for range 64 {
		workers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
				err := roundTrip(ctx, c)
				cancel()
				switch {
				case err == nil:
					done.Add(1)
				case status.Code(err) != codes.DeadlineExceeded:
					t.Errorf("a call was cut off: %v", err)
					return
				}
			}
		})
	}
	more := func(what string) {
		t.Helper()
		want := done.Load() + 1000
		err := process.Until(20*time.Second, 5*time.Millisecond, func() error {
			if done.Load() < want {
				return errNoCalls
			}
			return nil
		})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	for range 3 {
		more("before the stop")
		p.Stop()
		p.Start()
	}
	more("after the last start")
	halt()
}

const errNoCalls = sentence("calls do not succeed")
