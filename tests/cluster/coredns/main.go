// Command coredns is the cluster DNS of demo and tests: CoreDNS with the six plugins that it needs.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
)

func init() {
	// The order in which a query passes through the plugins; one that is missing here is never called.
	dnsserver.Directives = []string{"bind", "health", "ready", "errors", "kubernetes", "forward"}
}

func main() {
	coremain.Run()
}
