package projections

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/domain"
)

// snapshotQuery reads the same rows of one system as loadQuery, each kind in order of id, as of
// one moment: see loadQuery.
const snapshotQuery = selectHead + ofSystem +
	" UNION ALL (" + selectDevices + ofSystem + " ORDER BY device_id)" +
	" UNION ALL (" + selectEquipment + ofSystem + " ORDER BY equipment_id)" +
	" UNION ALL (" + selectAssignments + ofSystem + " ORDER BY device_id)" +
	" UNION ALL (" + selectConnections + ofSystem + " ORDER BY connection_id)"

// WriteSnapshot writes the current state of a system as JSON in the form of [domain.Snapshot],
// in pieces as the rows arrive, and returns the cursor that it is as of. It copies the rows'
// documents without decoding them. write must not keep its argument. If write fails,
// WriteSnapshot returns its error.
func (s *Store) WriteSnapshot(ctx context.Context, system domain.SystemID, write func([]byte) error) (domain.Cursor, error) {
	w := snapshotWriter{system: system, write: write}
	err := s.readAs(ctx, becomeReaderInOrder, within(system), w.row, snapshotQuery, system)
	if err == nil {
		err = w.end()
	}
	if w.failed != nil {
		return domain.Cursor{}, w.failed // write's error, as it is
	}
	return w.head, readError("read the snapshot of "+string(system), err)
}

// snapshotWriter converts rows to a snapshot.
type snapshotWriter struct {
	system domain.SystemID
	write  func([]byte) error
	failed error // error of write

	head  domain.Cursor
	begun bool
	list  int    // kind of the rows in the open list
	last  string // last id in the open list
	piece []byte
}

// snapshotPiece is how many bytes are collected before they are written.
const snapshotPiece = 32 << 10

// snapshotLists are the names of the snapshot's lists, by kind of row.
var snapshotLists = map[int]string{
	rowDevice: "devices", rowEquipment: "equipment", rowAssignment: "assignments", rowConnection: "connections",
}

func (w *snapshotWriter) row(rows pgx.Rows) error {
	var (
		kind        int
		id, t1      string
		at          pos
		seq         int64
		t2          *string
		since       time.Time
		system, sum any // not used
	)
	if err := rows.Scan(&kind, &system, &id, &at.ms, &at.n, &seq, &t1, &t2, &since, &sum); err != nil {
		return err
	}
	if kind == rowHead {
		w.head = domain.Cursor{Position: at.position(), Seq: uint64(seq)}
		return nil
	}
	if w.begun && (kind < w.list || kind == w.list && id <= w.last) {
		return fmt.Errorf("row %q of kind %d came after %q of kind %d", id, kind, w.last, w.list)
	}
	w.openTo(kind)
	if w.last != "" {
		w.piece = append(w.piece, ',')
	}
	w.last = id
	if kind == rowAssignment {
		text, err := json.Marshal(makeAssignment(id, t1, *t2, since, at))
		if err != nil {
			return fmt.Errorf("write an assignment as JSON: %w", err)
		}
		w.piece = append(w.piece, text...)
	} else {
		w.piece = appendDocument(w.piece, t1, t2)
	}
	return w.flush(snapshotPiece)
}

// appendDocument appends a row's document with its attributes, byte for byte.
func appendDocument(b []byte, document string, attributes *string) []byte {
	if attributes == nil {
		return append(b, document...)
	}
	b = append(b, document[:len(document)-1]...)
	b = append(b, `,"attributes":`...)
	b = append(b, *attributes...)
	return append(b, '}')
}

// openTo writes the beginning of the snapshot, if it is not written yet, and opens the lists up
// to the one of a kind.
func (w *snapshotWriter) openTo(kind int) {
	if !w.begun {
		w.begun = true
		w.list = rowDevice - 1
		w.piece = append(w.piece, `{"systemId":`...)
		w.piece = strconv.AppendQuote(w.piece, string(w.system))
		w.piece = append(w.piece, `,"position":`...)
		w.piece = strconv.AppendQuote(w.piece, w.head.Position.String())
		w.piece = append(w.piece, `,"seq":`...)
		w.piece = strconv.AppendUint(w.piece, w.head.Seq, 10)
	}
	for w.list < kind {
		if w.list >= rowDevice {
			w.piece = append(w.piece, ']')
		}
		w.list++
		w.last = ""
		w.piece = append(append(append(w.piece, `,"`...), snapshotLists[w.list]...), `":[`...)
	}
}

func (w *snapshotWriter) end() error {
	w.openTo(rowConnection)
	w.piece = append(w.piece, "]}"...)
	return w.flush(0)
}

// flush writes the collected bytes if they are more than above.
func (w *snapshotWriter) flush(above int) error {
	if len(w.piece) <= above {
		return nil
	}
	w.failed = w.write(w.piece)
	w.piece = w.piece[:0]
	return w.failed
}
