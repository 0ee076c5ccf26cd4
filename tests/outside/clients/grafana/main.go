// A PostgreSQL data source as Grafana's backend is one, without Grafana: the same drivers, used as it uses them. Requests come as
// lines of JSON, answers go as lines of JSON.
//
//	{"do": "ping"}
//	{"do": "text", "sql": "…"}                  a panel's query: text, simple protocol, every result read whole
//	{"do": "query", "sql": "…", "args": […]}    a menu's query: prepared, binary
//	{"do": "cancelled", "sql": "…"}             begun, and given up when standard input says so
package main

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/lib/pq"
)

type request struct {
	Do   string `json:"do"`
	SQL  string `json:"sql"`
	Args []any  `json:"args"`
}

type answer struct {
	Columns []string `json:"columns,omitempty"`
	Types   []string `json:"types,omitempty"`
	Rows    [][]any  `json:"rows"`
	Error   string   `json:"error,omitempty"`
	State   string   `json:"state,omitempty"`
}

// source is one of the two drivers that versions of Grafana use.
type source interface {
	ping(ctx context.Context) error
	text(ctx context.Context, sql string) (answer, error)
	query(ctx context.Context, sql string, args []any) (answer, error)
}

func main() {
	ctx := context.Background()
	driver, address := os.Args[1], os.Args[2]
	var from source
	var err error
	if driver == "pgx" {
		from, err = newPgx(ctx, address)
	} else {
		from, err = newPq(address)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	out := json.NewEncoder(os.Stdout)
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var asked request
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		told, err := serve(ctx, from, asked, lines)
		if err != nil {
			told = answer{Error: err.Error(), State: state(err)}
		}
		if err := out.Encode(told); err != nil {
			os.Exit(1)
		}
	}
}

func serve(ctx context.Context, from source, asked request, lines *bufio.Scanner) (answer, error) {
	switch asked.Do {
	case "ping":
		return answer{}, from.ping(ctx)
	case "text":
		return from.text(ctx, asked.SQL)
	case "query":
		return from.query(ctx, asked.SQL, asked.Args)
	case "cancelled":
		ctx, leave := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() {
			_, err := from.text(ctx, asked.SQL)
			done <- err
		}()
		lines.Scan()
		leave()
		return answer{}, <-done
	}
	return answer{}, fmt.Errorf("unknown request %q", asked.Do)
}

func state(err error) string {
	var ofPgx *pgconn.PgError
	var ofPq *pq.Error
	switch {
	case errors.As(err, &ofPgx):
		return ofPgx.Code
	case errors.As(err, &ofPq):
		return string(ofPq.Code)
	case errors.Is(err, context.Canceled):
		return "left"
	}
	return ""
}

// --- pgx ---

type pgxSource struct{ pool *pgxpool.Pool }

func newPgx(ctx context.Context, address string) (source, error) {
	pool, err := pgxpool.New(ctx, address)
	return pgxSource{pool}, err
}

func (s pgxSource) ping(ctx context.Context) error { return s.pool.Ping(ctx) }

func (s pgxSource) text(ctx context.Context, sql string) (answer, error) {
	connection, err := s.pool.Acquire(ctx)
	if err != nil {
		return answer{}, err
	}
	defer connection.Release()
	results, err := connection.Conn().PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return answer{}, err
	}
	types := pgtype.NewMap()
	var told answer
	for _, result := range results {
		for _, field := range result.FieldDescriptions {
			told.Columns = append(told.Columns, field.Name)
			name := fmt.Sprint(field.DataTypeOID)
			if known, ok := types.TypeForOID(field.DataTypeOID); ok {
				name = known.Name
			}
			told.Types = append(told.Types, name)
		}
		for _, row := range result.Rows {
			values := make([]any, len(row))
			for at, text := range row {
				field := result.FieldDescriptions[at]
				known, ok := types.TypeForOID(field.DataTypeOID)
				if text == nil || !ok {
					continue
				}
				value, err := known.Codec.DecodeValue(types, field.DataTypeOID, field.Format, text)
				if err != nil {
					return answer{}, fmt.Errorf("column %s: %w", field.Name, err)
				}
				values[at] = shown(value)
			}
			told.Rows = append(told.Rows, values)
		}
	}
	return told, nil
}

func (s pgxSource) query(ctx context.Context, sql string, args []any) (answer, error) {
	rows, err := s.pool.Query(ctx, sql, args...)
	if err != nil {
		return answer{}, err
	}
	defer rows.Close()
	var told answer
	for _, field := range rows.FieldDescriptions() {
		told.Columns = append(told.Columns, field.Name)
	}
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			return answer{}, err
		}
		for at := range values {
			values[at] = shown(values[at])
		}
		told.Rows = append(told.Rows, values)
	}
	return told, rows.Err()
}

// --- lib/pq ---

type pqSource struct{ db *sql.DB }

func newPq(address string) (source, error) {
	db, err := sql.Open("postgres", address)
	return pqSource{db}, err
}

func (s pqSource) ping(ctx context.Context) error { return s.db.PingContext(ctx) }

func (s pqSource) text(ctx context.Context, sql string) (answer, error) {
	return s.query(ctx, sql, nil)
}

func (s pqSource) query(ctx context.Context, sql string, args []any) (answer, error) {
	rows, err := s.db.QueryContext(ctx, sql, args...)
	if err != nil {
		return answer{}, err
	}
	defer rows.Close()
	var told answer
	types, err := rows.ColumnTypes()
	if err != nil {
		return answer{}, err
	}
	for _, column := range types {
		told.Columns = append(told.Columns, column.Name())
		told.Types = append(told.Types, column.DatabaseTypeName())
	}
	for rows.Next() {
		values, places := make([]any, len(types)), make([]any, len(types))
		for at := range values {
			places[at] = &values[at]
		}
		if err := rows.Scan(places...); err != nil {
			return answer{}, err
		}
		for at := range values {
			values[at] = shown(values[at])
		}
		told.Rows = append(told.Rows, values)
	}
	return told, rows.Err()
}

func shown(value any) any {
	switch value := value.(type) {
	case time.Time:
		return value.UTC().Format(time.RFC3339Nano)
	case []byte:
		return string(value)
	case pgtype.Numeric:
		float, err := value.Float64Value()
		if err != nil || !float.Valid {
			return nil
		}
		return float.Float64
	}
	return value
}
