package org.kbnn.demo

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
)

/** One model file among the assets; [binaryShare] is the share of its MACs that are binary. */
data class ModelEntry(val name: String, val file: String, val sizeBytes: Long, val binaryShare: Double)

/** The labels, how to feed the models, and the models to switch between: what `models.json` and the files say. */
data class Metadata(val labels: List<String>, val input: InputSpec, val models: List<ModelEntry>) {
    companion object {
        const val FILE = "models.json"
        private const val FORMAT = 2

        /**
         * Reads the index; [describe] says what its first model's file says about itself.
         *
         * @throws IllegalArgumentException when the text is not such an index, or contradicts itself or the file.
         */
        fun parse(text: String, describe: (ModelEntry) -> FileDescription): Metadata {
            try {
                val root = JSONObject(text)
                val format = root.getInt("format")
                require(format == FORMAT) { "$FILE has format $format, this app reads $FORMAT: export again" }
                val models = root.getJSONArray("models").map { array, k -> modelEntry(array.getJSONObject(k)) }
                require(models.isNotEmpty()) { "$FILE names no models: export again" }
                return of(describe(models.first()), root.getInt("shorter_side"), models).checked()
            } catch (error: JSONException) {
                throw IllegalArgumentException("$FILE cannot be read (${error.message}): export again", error)
            }
        }

        private fun of(file: FileDescription, shorterSide: Int, models: List<ModelEntry>) = Metadata(
            file.labels,
            InputSpec(file.height, file.width, file.channels, shorterSide, file.mean, file.std),
            models,
        )

        private fun modelEntry(json: JSONObject) = ModelEntry(
            json.getString("name"),
            json.getString("file"),
            json.getLong("size_bytes"),
            json.getDouble("binary_share"),
        )

        private fun <T> JSONArray.map(read: (JSONArray, Int) -> T): List<T> = List(length()) { read(this, it) }
    }

    private fun checked(): Metadata {
        require(labels.isNotEmpty()) { "${models.first().file} names no labels: export again" }
        require(input.mean.size == input.channels && input.std.size == input.channels && input.std.all { it > 0 }) {
            "mean and std do not fit ${input.channels} channels: export again"
        }
        require(input.height in 1..input.shorterSide && input.width in 1..input.shorterSide) {
            "a ${input.height}x${input.width} cut does not fit a side of ${input.shorterSide}: export again"
        }
        return this
    }
}
