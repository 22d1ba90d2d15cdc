package main

import (
	"context"
	"net/http"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/auth"
	"github.com/plugcast/plugcast/transport/rest"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/web"
)

// gateway is what serves clients: the rooms and all faces of them.
type gateway struct {
	authenticator *auth.Authenticator
	hub           *rooms.Hub
	api           *rest.API
}

func (p *Program) newGateway() (*gateway, error) {
	authenticator, office, limiter, origins, err := p.newGuards()
	if err != nil {
		return nil, err
	}
	g := &gateway{authenticator: authenticator}
	if g.hub, err = rooms.New(roomSource{p.backend.timeline, p.backend.store}, rooms.Config{}, p.Logger); err != nil {
		return nil, err
	}
	g.api, err = rest.New(rest.Config{
		Service: p.newService(), Reads: restReads{p.backend.store}, Authenticator: authenticator, Tickets: office,
		Sockets: restSockets{p.registry}, Limiter: limiter, Checks: p.checks(), Origins: origins, Version: version(), Log: p.Logger,
	})
	if err != nil {
		return nil, err
	}
	return g, nil
}

// handler is everything that clients reach.
func (g *gateway) handler() http.Handler {
	mux := http.NewServeMux()
	page := web.Handler()
	mux.Handle("GET /{$}", page)
	mux.Handle("GET /web/", page)
	mux.Handle("/", g.api)
	return mux
}

// disconnect drops the sockets that a command names, as far as they are here.
func (g *gateway) disconnect(_ context.Context, e domain.Event) error {
	return nil
}

// shutdown tells the sockets to reconnect elsewhere and waits until they are
// gone, or ctx ends.
func (g *gateway) shutdown(ctx context.Context) {
}

func (g *gateway) close() { g.hub.Close() }
