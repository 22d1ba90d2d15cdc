package projections

import "strconv"

// inOrder is the order of positions.
const inOrder = "position_ms, position_seq"

// MaxPage is the most that one page of anything holds. A limit of 0 means it.
const MaxPage = 1000

// rowOverhead is about what a row takes besides its data.
const rowOverhead = 256

func pageSize(limit int) int {
	if limit <= 0 || limit > MaxPage {
		return MaxPage
	}
	return limit
}

// rowPage bounds a query on rows with data, which ends before its ORDER BY, to a page:
// of limit rows, and of [PageBytes]. Postgres counts sizes without loading the data,
// so that nothing is read that the page does not hold. Each row says in a last
// column, more, whether the query has another behind it: a page may be short of its
// limit and not be the last.
func rowPage(columns, query, order string, limit int) string {
	n, size := strconv.Itoa(limit), "octet_length(data) + "+strconv.Itoa(rowOverhead)
	return "SELECT " + columns + ", more FROM (SELECT *, lead(true, 1, false) OVER in_order AS more, row_number() OVER in_order AS number," +
		" sum(" + size + ") OVER in_order AS bytes" +
		" FROM (" + query + " ORDER BY " + order + " LIMIT " + n + " + 1) AS one_more" +
		" WINDOW in_order AS (ORDER BY " + order + " ROWS UNBOUNDED PRECEDING)) AS page" +
		" WHERE number <= " + n + " AND (number = 1 OR bytes <= " + strconv.Itoa(PageBytes) + ") ORDER BY " + order
}
