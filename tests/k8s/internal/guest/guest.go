// Package guest is what a test and the agent in its virtual machine say to each other: JSON lines over a serial port.
package guest

// Port is the name of the virtio serial port; udev makes /dev/virtio-ports/<Port> of it.
const Port = "nodeseal.agent"

// Order asks for a program to be run as root. Several may run at once.
type Order struct {
	ID    int      `json:"id"`
	Argv  []string `json:"argv"`
	Stdin []byte   `json:"stdin,omitempty"`
}

// Event is something that happened to an order, or, with ID 0, that the agent has come up.
type Event struct {
	ID     int    `json:"id"`
	Stdout []byte `json:"stdout,omitempty"`
	Stderr []byte `json:"stderr,omitempty"`
	Done   bool   `json:"done,omitempty"`
	// Code is the exit code, or 128 and the signal, or 127 if the program could not be started.
	Code int `json:"code,omitempty"`
}
