package io.sparsests;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Set;
import java.util.StringJoiner;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.apache.lucene.analysis.core.KeywordAnalyzer;
import org.apache.lucene.document.Document;
import org.apache.lucene.document.DoubleField;
import org.apache.lucene.document.DoublePoint;
import org.apache.lucene.document.Field.Store;
import org.apache.lucene.document.KeywordField;
import org.apache.lucene.document.LongField;
import org.apache.lucene.index.CodecReader;
import org.apache.lucene.index.IndexReader;
import org.apache.lucene.index.IndexWriter;
import org.apache.lucene.index.IndexWriterConfig;
import org.apache.lucene.index.IndexableField;
import org.apache.lucene.index.LeafReaderContext;
import org.apache.lucene.index.SlowCodecReaderWrapper;
import org.apache.lucene.index.Term;
import org.apache.lucene.queryparser.classic.ParseException;
import org.apache.lucene.queryparser.classic.QueryParser;
import org.apache.lucene.search.BooleanClause.Occur;
import org.apache.lucene.search.BooleanQuery;
import org.apache.lucene.search.FieldDoc;
import org.apache.lucene.search.FieldExistsQuery;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.Query;
import org.apache.lucene.search.ScoreDoc;
import org.apache.lucene.search.Sort;
import org.apache.lucene.search.SortField;
import org.apache.lucene.search.SortRescorer;
import org.apache.lucene.search.TermInSetQuery;
import org.apache.lucene.search.TermQuery;
import org.apache.lucene.store.Directory;
import org.apache.lucene.util.BytesRef;

/**
 * Lucene in one call from Python instead of a hundred. A call costs some microseconds, and so does every object that
 * comes back, so strings go in and strings come out, one line per query or document.
 *
 * <p>jvm.py finds the public methods by name and reader.py describes the index. Only members that Lucene 9.9 and
 * Lucene 10 share are used. Run {@code make jar} after a change.
 */
public final class LuceneCalls {
    private static final String CONTENTS = "contents", ID = "id", RAW = "raw", ROW = "row"; // the fields of layout.py
    private static final Set<String> OWN = Set.of(CONTENTS, ID, RAW, ROW);
    private static final Query ALL = new FieldExistsQuery(ID); // every document has one
    private static final ObjectMapper JSON = new ObjectMapper(); // which is for several threads
    private static final KeywordAnalyzer WHOLE_TERMS = new KeywordAnalyzer();
    // Sorting the hits by score and row afterwards costs less than searching in that order, and also gives the rows.
    private static final SortRescorer BY_SCORE_AND_ROW = new SortRescorer(
            new Sort(SortField.FIELD_SCORE, new SortField(ROW, SortField.Type.LONG), SortField.FIELD_DOC));

    private LuceneCalls() {}

    /**
     * Searches for each line of {@code queries}, on all cores if there are several.
     *
     * @param limit a decimal number, the most hits per query
     * @param filter what {@link #filter} reads, or nothing
     * @return per query a line of score, row and document number of each hit, all separated by commas
     */
    public static String search(IndexSearcher searcher, String limit, String filter, String queries)
            throws IOException {
        int hits = Integer.parseInt(limit);
        Query among = filter.isEmpty() ? null : filter(JSON.readTree(filter));
        Stream<String> lines = queries.lines();
        if (queries.indexOf('\n') >= 0) {
            lines = lines.parallel();
        }
        return lines.map(query -> searchOne(searcher, hits, among, query)).collect(Collectors.joining("\n"));
    }

    private static String searchOne(IndexSearcher searcher, int limit, Query among, String query) {
        StringJoiner text = new StringJoiner(",");
        try {
            Query parsed = new QueryParser(CONTENTS, WHOLE_TERMS).parse(query);
            if (among != null) {
                parsed = new BooleanQuery.Builder().add(parsed, Occur.MUST).add(among, Occur.FILTER).build();
            }
            var found = BY_SCORE_AND_ROW.rescore(searcher, searcher.search(parsed, limit), limit);
            for (ScoreDoc hit : found.scoreDocs) {
                for (Object field : ((FieldDoc) hit).fields) {
                    text.add(field.toString());
                }
            }
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        } catch (ParseException e) {
            throw new IllegalArgumentException(e);
        }
        return text.toString();
    }

    /**
     * The query of a filter in JSON, of data/filters.py: {"and": [...]}, {"or": [...]}, {"not": ...}, and {"field", "op",
     * "value"}. Values are as in {@link #setFields}.
     */
    private static Query filter(JsonNode node) {
        BooleanQuery.Builder parts = new BooleanQuery.Builder();
        if (node.has("or")) {
            node.get("or").forEach(part -> parts.add(filter(part), Occur.SHOULD));
            return parts.build();
        }
        if (node.has("and")) {
            parts.add(ALL, Occur.FILTER);
            node.get("and").forEach(part -> parts.add(filter(part), Occur.FILTER));
            return parts.build();
        }
        if (node.has("not")) {
            parts.add(ALL, Occur.FILTER).add(filter(node.get("not")), Occur.MUST_NOT);
            return parts.build();
        }
        String field = node.get("field").textValue(), op = node.get("op").textValue();
        JsonNode value = node.get("value");
        return switch (op) {
            case "exists" -> new FieldExistsQuery(field);
            case "in" -> {
                List<BytesRef> words = new ArrayList<>();
                value.forEach(word -> words.add(new BytesRef(word.textValue())));
                yield new TermInSetQuery(field, words);
            }
            default -> compare(field, op, value);
        };
    }

    private static Query compare(String field, String op, JsonNode value) {
        boolean below = op.startsWith("<"), above = op.startsWith(">"), included = op.endsWith("=");
        if (value.isIntegralNumber()) {
            long number = value.longValue(), step = included ? 0 : 1;
            return LongField.newRangeQuery(
                    field, below ? Long.MIN_VALUE : number + step, above ? Long.MAX_VALUE : number - step);
        }
        if (value.isNumber()) {
            double number = value.doubleValue();
            return DoubleField.newRangeQuery(
                    field,
                    below ? Double.NEGATIVE_INFINITY : included ? number : DoublePoint.nextUp(number),
                    above ? Double.POSITIVE_INFINITY : included ? number : DoublePoint.nextDown(number));
        }
        return new TermQuery(new Term(field, value.asText()));
    }

    /**
     * Gives a document other fields than it had, beside its own first ones: a JSON list of name, value, name, value. Text
     * and booleans become keywords, whole numbers (of a date, microseconds) LongField, others DoubleField.
     */
    public static void setFields(Document document, String fields) throws IOException {
        for (Iterator<IndexableField> field = document.iterator(); field.hasNext(); ) {
            if (!OWN.contains(field.next().name())) {
                field.remove();
            }
        }
        JsonNode values = JSON.readTree(fields);
        for (int i = 0; i < values.size(); i += 2) {
            String name = values.get(i).textValue();
            JsonNode value = values.get(i + 1);
            if (value.isIntegralNumber()) {
                document.add(new LongField(name, value.longValue(), Store.NO));
            } else if (value.isNumber()) {
                document.add(new DoubleField(name, value.doubleValue(), Store.NO));
            } else {
                document.add(new KeywordField(name, value.asText(), Store.NO));
            }
        }
    }

    /** Returns the field {@code raw} of each document, one per line; {@code documents} has a number per line. */
    public static String raw(IndexReader reader, String documents) throws IOException {
        var stored = reader.storedFields();
        StringJoiner lines = new StringJoiner("\n");
        for (String number : documents.split("\n")) {
            lines.add(String.valueOf(stored.document(Integer.parseInt(number), Set.of(RAW)).get(RAW)));
        }
        return lines.toString();
    }

    /** Appends all documents of {@code reader} that are not deleted. pyjnius picks the wrong addIndexes. */
    public static void addIndexes(IndexWriter writer, IndexReader reader) throws IOException {
        var leaves = reader.leaves();
        CodecReader[] segments = new CodecReader[leaves.size()];
        for (LeafReaderContext leaf : leaves) {
            segments[leaf.ord] = SlowCodecReaderWrapper.wrap(leaf.reader());
        }
        writer.addIndexes(segments);
    }

    /**
     * Opens a writer, and keeps its merge threads from writing to stderr when they fail: whoever waits for a merge gets
     * its failure anyway. Java has one such handler for all threads; one that is set already stays.
     */
    public static IndexWriter openWriter(Directory directory, IndexWriterConfig config) throws IOException {
        if (Thread.getDefaultUncaughtExceptionHandler() == null) {
            Thread.setDefaultUncaughtExceptionHandler((thread, error) -> {});
        }
        return new IndexWriter(directory, config);
    }
}
