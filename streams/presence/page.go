package presence

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
)

// Page returns live sockets of all nodes, in the order of their ids: those behind the id after
// that are in the room of at least one of the systems, each once, or all sockets if systems is
// nil. It reads at most limit sockets, so that the cost of a page does not depend on the number
// of sockets. Pass next as after to get the next page; it is "" on the last page.
func (r *Registry) Page(
	ctx context.Context, systems []domain.SystemID, after string, limit int,
) (page []domain.Socket, next string, err error) {
	nodes, err := r.live(ctx)
	if err != nil || len(nodes) == 0 {
		return nil, "", err
	}
	if systems == nil {
		systems = []domain.SystemID{""}
	}
	holders, err := r.find(ctx, nodes, systems, after, limit+1)
	if err != nil {
		return nil, "", err
	}
	ids := make([]string, 0, len(holders))
	for id := range holders {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	if len(ids) > limit {
		ids = ids[:limit]
		next = ids[limit-1]
	}
	page, err = r.read(ctx, ids, holders)
	return page, next, err
}

// Find returns the live socket with the id, on any node, and whether there is one.
func (r *Registry) Find(ctx context.Context, id string) (domain.Socket, bool, error) {
	nodes, err := r.live(ctx)
	if err != nil || len(nodes) == 0 {
		return domain.Socket{}, false, err
	}
	for _, node := range nodes {
		found, err := r.read(ctx, []string{id}, map[string]string{id: node})
		if err != nil || len(found) > 0 {
			return append(found, domain.Socket{})[0], len(found) > 0, err
		}
	}
	return domain.Socket{}, false, nil
}

// find returns, by socket id, the node of the first sockets in the rooms, at most limit per
// node and room.
func (r *Registry) find(
	ctx context.Context, nodes []string, systems []domain.SystemID, after string, limit int,
) (map[string]string, error) {
	replies := make(map[string][]*redis.StringSliceCmd, len(nodes))
	_, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, node := range nodes {
			for _, system := range systems {
				from := "[" + string(system) + "/"
				if after != "" {
					from = "(" + string(system) + "/" + after
				}
				replies[node] = append(replies[node], p.ZRangeByLex(ctx, r.roomsKey(node), &redis.ZRangeBy{
					Min: from, Max: "(" + string(system) + "0", Count: int64(limit), // 0 is the byte behind the slash
				}))
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("presence: list sockets: %w", err)
	}
	holders := map[string]string{}
	for node, rooms := range replies {
		for _, reply := range rooms {
			for _, member := range reply.Val() {
				_, id, _ := strings.Cut(member, "/")
				holders[id] = node
			}
		}
	}
	return holders, nil
}

// read returns the sockets with these ids, in the order of their ids, from the nodes that hold
// them. It leaves out sockets that have gone or cannot be decoded.
func (r *Registry) read(ctx context.Context, ids []string, holders map[string]string) ([]domain.Socket, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	ofNode := map[string][]string{}
	for _, id := range ids {
		ofNode[holders[id]] = append(ofNode[holders[id]], id)
	}
	replies := make(map[string]*redis.SliceCmd, len(ofNode))
	_, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for node, fields := range ofNode {
			replies[node] = p.HMGet(ctx, r.socketsKey(node), fields...)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("presence: read sockets: %w", err)
	}
	var sockets []domain.Socket
	for _, reply := range replies {
		for _, value := range reply.Val() {
			var s domain.Socket
			if text, ok := value.(string); ok && json.Unmarshal([]byte(text), &s) == nil {
				sockets = append(sockets, s)
			}
		}
	}
	slices.SortFunc(sockets, func(a, b domain.Socket) int { return strings.Compare(a.SocketID, b.SocketID) })
	return sockets, nil
}
