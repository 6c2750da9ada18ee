package org.kbnn.demo

import java.security.MessageDigest
import org.json.JSONArray
import org.json.JSONException
import org.json.JSONObject

/** How a picture becomes network input; [Preprocessing] does it. */
data class InputSpec(
    val height: Int,
    val width: Int,
    val channels: Int,
    val shorterSide: Int,
    val mean: List<Float>,
    val std: List<Float>,
    val square: Boolean = false,
)

/**
 * One model file among the assets.
 *
 * [binaryShare] is the share of its MACs that are binary; [returnsProbabilities] tells that its outputs are
 * probabilities rather than logits.
 */
data class ModelEntry(
    val name: String,
    val file: String,
    val sha256: String,
    val sizeBytes: Long,
    val binaryShare: Double,
    val returnsProbabilities: Boolean,
) {
    /**
     * The file's bytes, after a check that they have the hash in the index.
     *
     * @throws IllegalArgumentException when they have another hash.
     */
    fun verified(bytes: ByteArray): ByteArray {
        val digest = MessageDigest.getInstance("SHA-256").digest(bytes).joinToString("") { "%02x".format(it) }
        require(digest == sha256.lowercase()) { "'$file' is not the file that ${Metadata.FILE} names: export again" }
        return bytes
    }
}

/** A model with what its own file says: its labels and how to feed it. */
data class Model(val entry: ModelEntry, val labels: List<String>, val input: InputSpec)

/** The models to switch between: what `models.json` and the files say. */
data class Metadata(val models: List<Model>) {
    companion object {
        const val FILE = "models.json"
        private const val FORMAT = 4

        /**
         * Reads the index; [describe] returns what a model's file says about itself.
         *
         * @throws IllegalArgumentException when the text is not such an index, or contradicts itself or a file.
         */
        fun parse(text: String, describe: (ModelEntry) -> FileDescription): Metadata {
            try {
                val root = JSONObject(text)
                val format = root.getInt("format")
                require(format == FORMAT) { "$FILE has format $format, this app reads $FORMAT: export again" }
                val entries = root.getJSONArray("models").map { array, k -> modelEntry(array.getJSONObject(k)) }
                require(entries.isNotEmpty()) { "$FILE names no models: export again" }
                val shorterSide = root.getInt("shorter_side")
                val square = root.getBoolean("square")
                return Metadata(entries.map { model(it, describe(it), shorterSide, square) })
            } catch (error: JSONException) {
                throw IllegalArgumentException("$FILE cannot be read (${error.message}): export again", error)
            }
        }

        private fun model(entry: ModelEntry, file: FileDescription, shorterSide: Int, square: Boolean): Model {
            val input = InputSpec(file.height, file.width, file.channels, shorterSide, file.mean, file.std, square)
            require(file.labels.isNotEmpty()) { "'${entry.file}' names no labels: export again" }
            require(file.mean.size == file.channels && file.std.size == file.channels && file.std.all { it > 0 }) {
                "'${entry.file}': mean and std do not fit ${file.channels} channels: export again"
            }
            require(file.height in 1..shorterSide && file.width in 1..shorterSide) {
                "'${entry.file}': a ${file.height}x${file.width} cut does not fit a side of $shorterSide: export again"
            }
            return Model(entry, file.labels, input)
        }

        private fun modelEntry(json: JSONObject) = ModelEntry(
            json.getString("name"),
            json.getString("file"),
            json.getString("sha256"),
            json.getLong("size_bytes"),
            json.getDouble("binary_share"),
            json.getBoolean("returns_probabilities"),
        )

        private fun <T> JSONArray.map(read: (JSONArray, Int) -> T): List<T> = List(length()) { read(this, it) }
    }
}
