package io.sparsests;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Set;
import java.util.StringJoiner;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.apache.lucene.analysis.core.KeywordAnalyzer;
import org.apache.lucene.index.CodecReader;
import org.apache.lucene.index.IndexReader;
import org.apache.lucene.index.IndexWriter;
import org.apache.lucene.index.IndexWriterConfig;
import org.apache.lucene.index.LeafReaderContext;
import org.apache.lucene.index.SlowCodecReaderWrapper;
import org.apache.lucene.queryparser.classic.ParseException;
import org.apache.lucene.queryparser.classic.QueryParser;
import org.apache.lucene.search.FieldDoc;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.ScoreDoc;
import org.apache.lucene.search.Sort;
import org.apache.lucene.search.SortField;
import org.apache.lucene.search.SortRescorer;
import org.apache.lucene.store.Directory;

/**
 * Lucene in one call from Python instead of a hundred. A call costs some microseconds, and so does every object that
 * comes back, so strings go in and strings come out, one line per query or document.
 *
 * <p>jvm.py finds the public methods by name and reader.py describes the index. Only members that Lucene 9.9 and
 * Lucene 10 share are used. Run {@code make jar} after a change.
 */
public final class LuceneCalls {
    private static final String CONTENTS = "contents", RAW = "raw", ROW = "row"; // the fields of layout.py
    private static final KeywordAnalyzer WHOLE_TERMS = new KeywordAnalyzer();
    // Sorting the hits by score and row afterwards costs less than searching in that order, and also gives the rows.
    private static final SortRescorer BY_SCORE_AND_ROW = new SortRescorer(
            new Sort(SortField.FIELD_SCORE, new SortField(ROW, SortField.Type.LONG), SortField.FIELD_DOC));

    private LuceneCalls() {}

    /**
     * Searches for each line of {@code queries}, on all cores if there are several.
     *
     * @param limit a decimal number, the most hits per query
     * @return per query a line of score, row and document number of each hit, all separated by commas
     */
    public static String search(IndexSearcher searcher, String limit, String queries) {
        int hits = Integer.parseInt(limit);
        Stream<String> lines = queries.lines();
        if (queries.indexOf('\n') >= 0) {
            lines = lines.parallel();
        }
        return lines.map(query -> searchOne(searcher, hits, query)).collect(Collectors.joining("\n"));
    }

    private static String searchOne(IndexSearcher searcher, int limit, String query) {
        StringJoiner text = new StringJoiner(",");
        try {
            var parsed = new QueryParser(CONTENTS, WHOLE_TERMS).parse(query);
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
