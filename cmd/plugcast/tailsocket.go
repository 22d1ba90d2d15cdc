package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/gorilla/websocket"

	"github.com/plugcast/plugcast/domain"
)

// throughServer follows a system over the native WebSocket protocol. It does not
// reconnect: when the server goes, it says so and ends.
func (c *tailCommand) throughServer(ctx context.Context, system domain.SystemID, after *domain.Position,
	filter domain.EventFilter, print func(*domain.Event) error,
) error {
	server, err := url.Parse(c.URL)
	if err != nil || server.Scheme != "ws" && server.Scheme != "wss" || server.Host == "" {
		return usage("--url looks like ws://HOST:PORT/ws or wss://HOST/ws")
	}
	place := server.Scheme + "://" + server.Host + server.Path // as errors show it: without a ticket or a password
	token, err := c.token(system)
	if err != nil {
		return err
	}
	dialer := websocket.Dialer{Subprotocols: []string{"plugcast.v1"}, HandshakeTimeout: 10 * time.Second}
	conn, response, err := dialer.DialContext(ctx, c.URL, http.Header{"Authorization": {"Bearer " + token}})
	if err != nil {
		if response != nil {
			return fmt.Errorf("connect to %s: the server answered %s", place, response.Status)
		}
		return fmt.Errorf("connect to %s: %w", place, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()

	join := map[string]any{"systemId": system}
	if after != nil {
		join["after"] = after
	}
	if len(filter.Types) > 0 {
		join["types"] = filter.Types
	}
	if len(filter.Devices) > 0 {
		join["devices"] = filter.Devices
	}
	if err := conn.WriteJSON(map[string]any{"event": "join-system", "id": 1, "data": join}); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	for {
		_, message, err := conn.ReadMessage()
		if err != nil {
			return closed(ctx, err)
		}
		if err := printFrames(message, print); err != nil {
			return err
		}
	}
}

// token is the given one, or a short one made with the secret.
func (c *tailCommand) token(system domain.SystemID) (string, error) {
	if c.Token != "" {
		return c.Token, nil
	}
	if c.Auth.JWTSecret == "" {
		return "", usage("--url needs --token, or PLUGCAST_JWT_SECRET to make one")
	}
	actor := domain.Actor{
		Subject: "tail", Role: domain.RoleViewer, Systems: []domain.SystemID{system}, ExpiresAt: time.Now().Add(24 * time.Hour),
	}
	return c.Auth.config().Sign(actor, time.Now())
}

// closed turns the end of a connection into words.
func closed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if end := new(websocket.CloseError); errors.As(err, &end) {
		return fmt.Errorf("the server closed the connection: %d %s", end.Code, end.Text)
	}
	return fmt.Errorf("the connection broke: %w", err)
}

// printFrames takes a message, one frame or an array of them, and prints the
// events in it. An error frame ends the command.
func printFrames(message []byte, print func(*domain.Event) error) error {
	frames := []json.RawMessage{message}
	if len(message) > 0 && message[0] == '[' {
		if err := json.Unmarshal(message, &frames); err != nil {
			return fmt.Errorf("read frame: %w", err)
		}
	}
	for _, raw := range frames {
		var frame struct {
			Position *domain.Position `json:"position"` // events have one, other frames do not
			Event    string           `json:"event"`
			Data     struct {
				Code   string `json:"code"`
				Detail string `json:"detail"`
			} `json:"data"`
		}
		if err := json.Unmarshal(raw, &frame); err != nil {
			return fmt.Errorf("read frame: %w", err)
		}
		switch {
		case frame.Position != nil:
			var e domain.Event
			if err := json.Unmarshal(raw, &e); err != nil {
				return fmt.Errorf("read event: %w", err)
			}
			if err := print(&e); err != nil {
				return err
			}
		case frame.Event == "error":
			return fmt.Errorf("the server refused: %s: %s", frame.Data.Code, frame.Data.Detail)
		}
	}
	return nil
}
