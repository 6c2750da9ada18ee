package org.kbnn.demo

import android.content.res.AssetManager
import java.io.FileNotFoundException
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** The models to choose from. */
interface Models {
    /** @throws IllegalArgumentException when there is no index, or an unreadable one. */
    fun metadata(): Metadata

    /** @throws IllegalArgumentException when the file is missing, or not a model that this runtime knows. */
    fun open(entry: ModelEntry): Classifier
}

/** What `kbnn export-android` put among the assets. */
class ModelStore(private val assets: AssetManager) : Models {
    override fun metadata(): Metadata = try {
        Metadata.parse(assets.open(Metadata.FILE).use { it.readBytes().decodeToString() })
    } catch (error: FileNotFoundException) {
        throw IllegalArgumentException("no models among the assets: run `kbnn export-android RUN`, then build again", error)
    }

    override fun open(entry: ModelEntry): Classifier = try {
        TfLiteClassifier(read(entry.file), THREADS)
    } catch (error: IOException) {
        throw IllegalArgumentException("'${entry.file}' is missing among the assets: export again", error)
    }

    private fun read(file: String): ByteBuffer {
        val bytes = assets.open(file).use { it.readBytes() }
        return ByteBuffer.allocateDirect(bytes.size).order(ByteOrder.nativeOrder()).put(bytes).also { it.rewind() }
    }

    private companion object {
        // As the benchmark's default, so that the figures can be set side by side.
        const val THREADS = 1
    }
}
