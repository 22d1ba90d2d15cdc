package projections

import "strconv"

// inOrder is the order of positions.
const inOrder = "position_ms, position_seq"

// MaxPage is the most rows of one page. A limit of 0 means MaxPage.
const MaxPage = 1000

// rowOverhead is the approximate size of a row besides its data, in bytes.
const rowOverhead = 256

func pageSize(limit int) int {
	if limit <= 0 || limit > MaxPage {
		return MaxPage
	}
	return limit
}

// rowPage bounds a query on rows with data, which ends before its ORDER BY, to a page of limit
// rows and of [PageBytes]. Postgres computes sizes without loading the data, so that it loads
// no data beyond the page. Each row has a last column, more, which says whether the query has
// another row behind it: a page may be shorter than its limit and not be the last.
func rowPage(columns, query, order string, limit int) string {
	n, size := strconv.Itoa(limit), "octet_length(data) + "+strconv.Itoa(rowOverhead)
	return "SELECT " + columns + ", more FROM (SELECT *, lead(true, 1, false) OVER in_order AS more, row_number() OVER in_order AS number," +
		" sum(" + size + ") OVER in_order AS bytes" +
		" FROM (" + query + " ORDER BY " + order + " LIMIT " + n + " + 1) AS one_more" +
		" WINDOW in_order AS (ORDER BY " + order + " ROWS UNBOUNDED PRECEDING)) AS page" +
		" WHERE number <= " + n + " AND (number = 1 OR bytes <= " + strconv.Itoa(PageBytes) + ") ORDER BY " + order
}
