package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/streams/reactions"
)

// newReactions builds the reactions to events that every process runs, whatever its
// roles.
func (p *Program) newReactions() {
	p.deadLetters = reactions.NewDeadLetters(p.backend.log)
	p.reactions = reactions.New(reactions.Config{
		On:  reactionsTo(p.shelly, p.disconnects),
		Log: p.backend.log, DeadLetters: p.deadLetters, Node: p.Server.NodeName, Logger: p.Logger,
	})
}

// reactionsTo are the reactions to each type of event. Bridges may not bring many of
// these at once: see [domain.EventType.TriggersReaction].
func reactionsTo(s *shellySide, d *disconnects) map[domain.EventType]reactions.Reaction {
	return merged(s.reactions(), map[domain.EventType]reactions.Reaction{domain.TypeDisconnectRequested: d.react})
}

var (
	handledDesc = describe("reactions_total", "Events that this process reacted to.")
	failedDesc  = describe("reaction_failures_total", "Runs of reactions that failed.")
	deadDesc    = describe("dead_letters_total", "Events for which this process gave up the reaction.")
	queuedDesc  = describe("reactions_queued", "Events in memory that wait for a reaction.")
	behindDesc  = describe("reactions_systems_behind", "Systems with more waiting events than fit in memory; the rest are read from the log.")
	panicsDesc  = describe("panics_total", "Panics that were caught, by the part that panicked.", "where")
)

// collectReactions sends the figures of reactions, and of panics.
func (p *Program) collectReactions(send func(*prometheus.Desc, prometheus.ValueType, float64, ...string)) {
	s := p.reactions.Stats()
	send(handledDesc, prometheus.CounterValue, float64(s.Handled))
	send(failedDesc, prometheus.CounterValue, float64(s.Failed))
	send(deadDesc, prometheus.CounterValue, float64(s.Dead))
	send(queuedDesc, prometheus.GaugeValue, float64(s.Queued))
	send(behindDesc, prometheus.GaugeValue, float64(s.Behind))
	for where, n := range isolate.Panics() {
		send(panicsDesc, prometheus.CounterValue, float64(n), where)
	}
}
