package org.kbnn.demo

import java.io.ByteArrayInputStream
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.zip.ZipInputStream

/**
 * What a .tflite file says about itself: its labels and the format of its input.
 *
 * Files carry it as TensorFlow Lite's tools read it: a FlatBuffers table of `metadata_schema.fbs` among the model's
 * buffers, and a ZIP archive with the labels behind the model.
 */
data class FileDescription(
    val labels: List<String>,
    val height: Int,
    val width: Int,
    val channels: Int,
    val mean: List<Float>,
    val std: List<Float>,
) {
    companion object {
        private const val ENTRY = "TFLITE_METADATA"
        private const val LABELS = "labels.txt"
        private const val GREY = 2
        private const val END_OF_ARCHIVE = 0x06054b50
        private const val END_SIZE = 22

        /** @throws IllegalArgumentException when the file says nothing about itself, or is damaged. */
        fun read(file: ByteArray): FileDescription = try {
            val image = Table.root(entry(file)).tables(3).first().tables(2).first()
            val properties = image.table(3)!!.table(1)!!
            val size = properties.table(1)!!
            val normalization = image.tables(4).first().table(1)!!
            FileDescription(
                labels(file),
                size.number(1),
                size.number(0),
                if (properties.byte(0) == GREY) 1 else 3,
                normalization.floats(0),
                normalization.floats(1),
            )
        } catch (error: RuntimeException) {
            throw IllegalArgumentException("the file does not say how to feed it: export again", error)
        } catch (error: IOException) {
            throw IllegalArgumentException("the file's labels cannot be read: export again", error)
        }

        /** The buffer that the model's metadata names. */
        private fun entry(file: ByteArray): ByteBuffer {
            val model = Table.root(ByteBuffer.wrap(file))
            val named = model.tables(6).first { it.text(0) == ENTRY }
            return model.tables(4)[named.number(1)].bytes(0)
        }

        private fun labels(file: ByteArray): List<String> {
            val end = ByteBuffer.wrap(file).order(ByteOrder.LITTLE_ENDIAN).position(file.size - END_SIZE).slice()
                .order(ByteOrder.LITTLE_ENDIAN)
            require(end.getInt(0) == END_OF_ARCHIVE) { "no archive behind the model" }
            val directory = end.getInt(16)
            val first = ByteBuffer.wrap(file).order(ByteOrder.LITTLE_ENDIAN).getInt(directory + 42)
            ZipInputStream(ByteArrayInputStream(file, first, file.size - first)).use { archive ->
                generateSequence { archive.nextEntry }.first { it.name == LABELS }
                return archive.readBytes().decodeToString().lines()
            }
        }
    }

    /** A FlatBuffers table: fields by their number in the schema. */
    private class Table(private val data: ByteBuffer, private val position: Int) {
        private val fields = position - data.getInt(position)

        fun byte(slot: Int): Int = field(slot)?.let { data.get(it).toInt() } ?: 0

        fun number(slot: Int): Int = field(slot)?.let(data::getInt) ?: 0

        fun table(slot: Int): Table? = followed(slot)?.let { Table(data, it) }

        fun tables(slot: Int): List<Table> = items(slot) { Table(data, it + data.getInt(it)) }

        fun floats(slot: Int): List<Float> = items(slot, data::getFloat)

        fun text(slot: Int): String = bytes(slot).let { text -> ByteArray(text.remaining()).also(text::get).decodeToString() }

        fun bytes(slot: Int): ByteBuffer {
            val place = followed(slot) ?: return ByteBuffer.allocate(0)
            return data.duplicate().position(place + 4).limit(place + 4 + data.getInt(place)).slice()
        }

        /** The items of a vector, each of 4 bytes. */
        private fun <T> items(slot: Int, read: (Int) -> T): List<T> {
            val place = followed(slot) ?: return emptyList()
            return List(data.getInt(place)) { read(place + 4 + 4 * it) }
        }

        private fun followed(slot: Int): Int? = field(slot)?.let { it + data.getInt(it) }

        /** The position of a field; null if the table does not have it. */
        private fun field(slot: Int): Int? {
            val entry = 4 + 2 * slot
            if (entry >= data.getShort(fields)) return null
            return data.getShort(fields + entry).toInt().takeIf { it != 0 }?.let { position + it }
        }

        companion object {
            fun root(buffer: ByteBuffer): Table {
                val data = buffer.duplicate().order(ByteOrder.LITTLE_ENDIAN)
                return Table(data, data.getInt(0))
            }
        }
    }
}
