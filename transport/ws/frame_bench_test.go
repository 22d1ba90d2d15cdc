package ws

import (
	"strings"
	"testing"
)

var benchFrames = map[string]string{
	"ping": `{"event":"ping","id":17}`,
	"join": `{"event":"join-system","id":1,"data":{"systemId":"clinica-sol",` +
		`"after":"1795461046705-0","snapshot":true,"types":["device-update"]}}`,
	"large": `{"event":"join-system","id":1,"data":{"systemId":"clinica-sol",` +
		`"devices":["d"` + strings.Repeat(`,"shellyplugsg3-8cbfea9a1b2c"`, 255) + `]}}`,
}

func BenchmarkParseRequest(b *testing.B) {
	for name, message := range benchFrames {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := parseRequest([]byte(message)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
