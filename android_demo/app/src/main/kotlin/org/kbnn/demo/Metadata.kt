package org.kbnn.demo

import org.json.JSONArray
import org.json.JSONException
import org.json.JSONObject

/** How a picture becomes network input; `kbnn export-android` writes it, [Preprocessing] does it. */
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

/** What `models.json` says: the labels, how to feed the models, and the models to switch between. */
data class Metadata(val labels: List<String>, val input: InputSpec, val models: List<ModelEntry>) {
    companion object {
        const val FILE = "models.json"
        private const val FORMAT = 1

        /** @throws IllegalArgumentException when the text is not such an index, or contradicts itself. */
        fun parse(text: String): Metadata {
            try {
                val root = JSONObject(text)
                val format = root.getInt("format")
                require(format == FORMAT) { "$FILE has format $format, this app reads $FORMAT: export again" }
                return Metadata(
                    root.getJSONArray("labels").map { array, k -> array.getString(k) },
                    inputSpec(root.getJSONObject("input")),
                    root.getJSONArray("models").map { array, k -> modelEntry(array.getJSONObject(k)) },
                ).checked()
            } catch (error: JSONException) {
                throw IllegalArgumentException("$FILE cannot be read (${error.message}): export again", error)
            }
        }

        private fun inputSpec(json: JSONObject) = InputSpec(
            json.getInt("height"),
            json.getInt("width"),
            json.getInt("channels"),
            json.getInt("shorter_side"),
            json.getJSONArray("mean").map { array, k -> array.getDouble(k).toFloat() },
            json.getJSONArray("std").map { array, k -> array.getDouble(k).toFloat() },
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
        require(labels.isNotEmpty() && models.isNotEmpty()) { "$FILE names no labels or no models: export again" }
        require(input.channels == 1 || input.channels == 3) { "${input.channels} channels: this app feeds 1 or 3" }
        require(input.mean.size == input.channels && input.std.size == input.channels && input.std.all { it > 0 }) {
            "mean and std do not fit ${input.channels} channels: export again"
        }
        require(input.height in 1..input.shorterSide && input.width in 1..input.shorterSide) {
            "a ${input.height}x${input.width} cut does not fit a side of ${input.shorterSide}: export again"
        }
        return this
    }
}
