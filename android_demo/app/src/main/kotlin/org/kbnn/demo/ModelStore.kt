package org.kbnn.demo

import android.content.res.AssetManager
import java.io.FileNotFoundException
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** The models to choose from. */
interface Models {
    /** @throws IllegalArgumentException when the index or a model is missing, unreadable or not what it should be. */
    fun metadata(): Metadata

    /** @throws IllegalArgumentException when the file is missing, or not a model that this runtime knows. */
    fun open(entry: ModelEntry): Classifier
}

/** What `kbnn export-android` put among the assets. */
class ModelStore(private val assets: AssetManager) : Models {
    override fun metadata(): Metadata = try {
        Metadata.parse(assets.open(Metadata.FILE).use { it.readBytes().decodeToString() }) { described(it, read(it)) }
    } catch (error: FileNotFoundException) {
        throw IllegalArgumentException("no models among the assets: run `kbnn export-android RUN`, then build again", error)
    }

    override fun open(entry: ModelEntry): Classifier = TfLiteClassifier(direct(read(entry)), THREADS)

    private fun described(entry: ModelEntry, bytes: ByteArray): FileDescription = try {
        FileDescription.read(bytes)
    } catch (error: IllegalArgumentException) {
        throw IllegalArgumentException("'${entry.file}': ${error.message}", error)
    }

    private fun read(entry: ModelEntry): ByteArray = try {
        entry.verified(assets.open(entry.file).use { it.readBytes() })
    } catch (error: IOException) {
        throw IllegalArgumentException("'${entry.file}' is missing among the assets: export again", error)
    }

    private fun direct(bytes: ByteArray): ByteBuffer =
        ByteBuffer.allocateDirect(bytes.size).order(ByteOrder.nativeOrder()).put(bytes).also { it.rewind() }

    private companion object {
        // The default of `kbnn benchmark`, so that latencies can be compared.
        const val THREADS = 1
    }
}
